//! How heavy the state is, against what another node takes over at once.

/// Bytes of a state as a document that a node takes over, at most.
pub const MAX_STATE_BYTES: u64 = 512 << 20;
/// From here on somebody is told, while there is still time to do something about it.
const HEAVY_BYTES: u64 = MAX_STATE_BYTES / 2;

/// What is to be said of a state of so many bytes; `None` = nothing.
pub fn weight_problem(bytes: u64) -> Option<String> {
    let mib = |bytes: u64| bytes >> 20;
    let (weight, most) = (mib(bytes), mib(MAX_STATE_BYTES));
    let cure = "smaller sites make it lighter, once they have taken the place of the last five";
    match () {
        () if bytes <= HEAVY_BYTES => None,
        () if bytes <= MAX_STATE_BYTES => Some(format!(
            "the state of the cluster has {weight} MiB; at {most} MiB nodes that join or have fallen behind could not take it \
             over: {cure}"
        )),
        () => Some(format!(
            "the state of the cluster has {weight} MiB, and nodes that join or have fallen behind cannot take over more than \
             {most} MiB: {cure}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_still_do_something_is_told() {
        let check = |bytes, expected: Option<&str>| {
            let told = weight_problem(bytes);
            let part = expected.unwrap_or_default();
            assert_eq!(told.is_some(), expected.is_some(), "{bytes}");
            assert!(told.is_none_or(|told| told.contains(part)), "{bytes}: {part}");
        };
        check(0, None);
        check(256 << 20, None);
        check(300 << 20, Some("has 300 MiB; at 512 MiB nodes"));
        check(512 << 20, Some("has 512 MiB; at 512 MiB nodes"));
        check(600 << 20, Some("cannot take over more than 512 MiB"));
    }
}
