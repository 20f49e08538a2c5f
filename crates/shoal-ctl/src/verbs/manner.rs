//! How a revision comes into force, as every verb that makes one takes it.

use clap::Args;
use shoal_model::state::{LONGEST_BAKE, LONGEST_CONFIRM, MAX_CHECKS, SHORTEST_BAKE, SHORTEST_CONFIRM};
use shoal_model::units::{Period, millis_u64};
use shoal_proto::admin::{
    ApplyRequest, ApplyResponse, Canary, EditRequest, Manner, Pace, RollOutRequest, RollbackRequest,
};

use super::Session;
use crate::failure::Failure;
use crate::output;

/// How long some nodes try a revision when nobody says.
const CANARY_TIMEOUT: Period = Period::seconds(3600);

/// What `apply`, `set`, `delete`, `edit` and `rollback` take.
#[derive(Args, Clone, Debug)]
pub(super) struct MannerArgs {
    /// End as soon as the cluster has agreed, without waiting for the nodes [default: wait for every live node]
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Go back to what was before unless the revision is confirmed in time, or with --waves everywhere; 5s to 7d
    /// [default: it stays] [with --canary: 1h] [with --waves: 1d, or 20 times --bake]
    #[arg(long, value_name = "TIME", value_parser = confirm_timeout, conflicts_with = "at_once")]
    confirm_timeout: Option<Period>,
    /// Until it is confirmed only these serve it: node=NAME[,NAME…], region=NAME, or percent=1 to 99 of the nodes
    /// [default: all do]
    #[arg(long, value_name = "WHO", value_parser = canary, conflicts_with_all = ["waves", "urgent", "at_once"])]
    canary: Option<Canary>,
    /// Bring it to more and more nodes: each wave is watched before the next, and the revision goes if it does worse than
    /// what the others serve [default: as `shoal rollout policy` says]
    #[arg(long, conflicts_with = "at_once")]
    waves: bool,
    #[command(flatten)]
    pace: PaceArgs,
    /// In waves that cannot wait: one node for 5s, then a region every 2s
    #[arg(long, conflicts_with_all = ["bake", "checks", "at_once"])]
    urgent: bool,
    /// On all nodes at once, whatever `shoal rollout policy` says
    #[arg(long)]
    at_once: bool,
}

/// How fast a revision goes from wave to wave.
#[derive(Args, Clone, Debug)]
pub(super) struct PaceArgs {
    /// How long each wave is watched, 1s to 1d; twice as long where there are fewer than 1000 requests to judge by
    /// [default: the policy's, or 60s]
    #[arg(long, value_name = "TIME", value_parser = bake, requires = "waves")]
    bake: Option<Period>,
    /// How often all nodes of a wave have to answer meanwhile, 1 to 100 [default: the policy's, or 5]
    #[arg(long, value_name = "N", requires = "waves",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CHECKS)))]
    checks: Option<u32>,
}

/// A change of the site.
pub(super) enum Change {
    Apply(ApplyRequest),
    Edit(EditRequest),
    Rollback(RollbackRequest),
}

impl MannerArgs {
    fn manner(&self) -> Manner {
        let within = self.confirm_timeout.or(self.canary.is_some().then_some(CANARY_TIMEOUT));
        let in_waves = self.waves || self.urgent;
        Manner {
            confirm_within_ms: within.map_or(0, |time| millis_u64(time.0)),
            canary: self.canary.clone(),
            waves: in_waves.then(|| Pace { urgent: self.urgent, ..self.pace.pace() }),
            at_once: self.at_once,
        }
    }
}

impl PaceArgs {
    /// 0 = what is usual.
    pub(super) fn pace(&self) -> Pace {
        let bake_ms = self.bake.map_or(0, |time| millis_u64(time.0));
        Pace { bake_ms, checks: self.checks.unwrap_or_default(), urgent: false }
    }
}

impl Session {
    /// Has `change` come into force as the arguments of `verb` say.
    pub(super) async fn publish(
        &self,
        verb: &str,
        change: Change,
        args: &MannerArgs,
    ) -> Result<ApplyResponse, Failure> {
        let manner = args.manner();
        if manner != Manner::default() {
            let would_wait = manner.confirm_within_ms > 0;
            let request = RollOutRequest { manner: Some(manner), ..RollOutRequest::default() };
            let request = match change {
                Change::Apply(apply) => RollOutRequest { apply: Some(apply), ..request },
                Change::Edit(edit) => RollOutRequest { edit: Some(edit), ..request },
                Change::Rollback(rollback) => RollOutRequest { rollback: Some(rollback), ..request },
            };
            let response = self.client.roll_out(verb, request).await?;
            if would_wait && response.unchanged && response.rollout.is_none() {
                output::note("nothing has changed, so nothing waits to be confirmed");
            }
            return Ok(response);
        }
        match change {
            Change::Apply(request) => self.client.apply(request).await,
            Change::Edit(request) => self.client.edit(verb, request).await,
            Change::Rollback(request) => self.client.rollback(request).await,
        }
    }
}

/// Somebody has to have a chance, and nobody else can apply anything meanwhile.
fn confirm_timeout(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    match (SHORTEST_CONFIRM..=LONGEST_CONFIRM).contains(&period.0) {
        true => Ok(period),
        false => {
            let (shortest, longest) = (Period(SHORTEST_CONFIRM), Period(LONGEST_CONFIRM));
            Err(format!("a revision can be confirmed within {shortest} to {longest}"))
        }
    }
}

fn bake(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    match (SHORTEST_BAKE..=LONGEST_BAKE).contains(&period.0) {
        true => Ok(period),
        false => {
            let (shortest, longest) = (Period(SHORTEST_BAKE), Period(LONGEST_BAKE));
            Err(format!("a wave can be watched for {shortest} to {longest}"))
        }
    }
}

/// Who tries a revision, as it is written on the command line.
fn canary(text: &str) -> Result<Canary, String> {
    let (kind, who) = text.split_once('=').unwrap_or_default();
    match kind {
        "node" if who.split(',').all(|name| !name.is_empty()) => {
            Ok(Canary { nodes: who.split(',').map(str::to_owned).collect(), ..Canary::default() })
        }
        "region" if !who.is_empty() => Ok(Canary { region: who.to_owned(), ..Canary::default() }),
        "percent" => match who.parse() {
            Ok(percent @ 1..=99) => Ok(Canary { percent, ..Canary::default() }),
            _ => {
                Err("write 1 to 99, as in percent=10; to have it on all nodes leave --canary out".to_owned())
            }
        },
        _ => Err("write node=NAME, region=NAME or percent=N".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_written_in_three_ways() {
        let check = |text: &str, expected: Option<(&[&str], &str, u32)>| {
            let expected = expected.map(|(nodes, region, percent)| Canary {
                nodes: nodes.iter().map(|&name| name.to_owned()).collect(),
                region: region.to_owned(),
                percent,
            });
            assert_eq!(canary(text).ok(), expected, "{text}");
        };
        check("node=n1", Some((&["n1"], "", 0)));
        check("node=n1,n2", Some((&["n1", "n2"], "", 0)));
        check("region=west", Some((&[], "west", 0)));
        check("percent=10", Some((&[], "", 10)));
        for wrong in
            ["", "n1", "node=", "node=n1,", "region=", "percent=0", "percent=100", "percent=-1", "zone=a"]
        {
            check(wrong, None);
        }
    }
}
