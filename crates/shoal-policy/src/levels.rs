//! How far the level of a cluster can be raised, and who stands in the way.

/// A member, as far as its version goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The highest level it says to know; `None` = it is not heard.
    pub knows: Option<u32>,
}

/// Why the level cannot be that of the newest member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Whatever version it has, it may come back with another one.
    NotHeard,
    /// Its version knows no more.
    Knows(u32),
}

/// How far it can be raised now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The level that every member knows, or that of the cluster while somebody is not heard.
    pub reachable: u32,
    /// What the newest member knows.
    pub newest: u32,
    /// For each member, in the order given.
    pub obstacles: Vec<Option<Obstacle>>,
}

/// Looks at all members of a cluster that is at `level`.
pub fn outlook(level: u32, members: &[Member]) -> Outlook {
    let newest = members.iter().filter_map(|member| member.knows).max().unwrap_or(level).max(level);
    let obstacle = |member: &Member| match member.knows {
        None => Some(Obstacle::NotHeard),
        Some(knows) => (knows < newest).then_some(Obstacle::Knows(knows)),
    };
    let least = members.iter().map(|member| member.knows).min().flatten();
    Outlook {
        reachable: least.unwrap_or(level).max(level),
        newest,
        obstacles: members.iter().map(obstacle).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_decides() {
        let check = |level, knows: &[Option<u32>], reachable, newest, in_the_way: &[Option<Obstacle>]| {
            let members: Vec<Member> = knows.iter().map(|knows| Member { knows: *knows }).collect();
            let expected = Outlook { reachable, newest, obstacles: in_the_way.to_vec() };
            assert_eq!(outlook(level, &members), expected, "{level} {knows:?}");
        };
        let old = Some(Obstacle::Knows(7));
        let silent = Some(Obstacle::NotHeard);
        check(7, &[Some(7), Some(7)], 7, 7, &[None, None]);
        check(7, &[Some(8), Some(7)], 7, 8, &[None, old]);
        check(7, &[Some(8), Some(8)], 8, 8, &[None, None]);
        check(7, &[Some(9), Some(8)], 8, 9, &[None, Some(Obstacle::Knows(8))]); // a level in between
        check(7, &[Some(8), None], 7, 8, &[None, silent]); // it may have been the last of the old
        check(7, &[Some(7), None], 7, 7, &[None, silent]);
        check(8, &[Some(8), Some(7)], 8, 8, &[None, old]); // it has stopped, and is to be replaced
        check(0, &[Some(7)], 7, 7, &[None]);
        check(7, &[], 7, 7, &[]);
    }
}
