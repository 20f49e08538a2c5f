//! `shoal audit`: who has asked for which change.

use aws_lc_rs::digest::{Context, SHA256};
use clap::Args;
use shoal_model::units::{Period, millis_u64};
use shoal_proto::admin::{AuditRecord, AuditRequest};

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal audit` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal audit
  shoal audit --since 24h --limit 1000 -o json

The cluster remembers the last 5000 changes, and the last 2000 purges. Each record has a hash of itself and of the one
before it, which is checked here: exit code 2 if one is not what it was.")]
pub struct AuditArgs {
    /// Most records that are listed
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=7000))]
    limit: u32,
    /// Only what was changed so lately
    #[arg(long, value_name = "TIME", value_parser = Period::parse)]
    since: Option<Period>,
    #[command(flatten)]
    node: NodeArgs,
}

impl AuditArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let ago = self.since.map(|since| millis_u64(since.0));
        let since_ms = ago.map_or(0, |ago| (session.style.now * 1000).saturating_sub(ago));
        let response = session.client.audit(AuditRequest { limit: self.limit, since_ms }).await?;
        session.print(&response, render::audit)?;
        match broken(&response.records) {
            None => Ok(Exit::Done),
            Some(record) => {
                let why = format!("record {} of the {} is not what it was", record.number, record.chain);
                Err(Failure::new(Exit::Remote, "audit", why).try_command("shoal audit on another node"))
            }
        }
    }
}

/// A record whose hash is another one's, or that does not follow the one before it; they come newest first.
fn broken(records: &[AuditRecord]) -> Option<&AuditRecord> {
    records.iter().enumerate().find_map(|(place, record)| {
        let before = records[place + 1..].iter().find(|before| before.chain == record.chain);
        let follows =
            before.is_none_or(|before| before.number + 1 == record.number && before.hash == record.previous);
        (!follows || link(&record.previous, &record.line) != record.hash).then_some(record)
    })
}

fn link(previous: &str, line: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(previous.as_bytes());
    context.update(line.as_bytes());
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_found() {
        let mut records: Vec<AuditRecord> = Vec::new();
        for number in 1..=3 {
            let previous = records.first().map_or_else(String::new, |before| before.hash.clone());
            let line = format!("line {number}");
            let hash = link(&previous, &line);
            let chain = "changes".to_owned();
            records.insert(0, AuditRecord { chain, number, line, hash, previous, ..AuditRecord::default() });
        }
        let check = |change: &dyn Fn(&mut Vec<AuditRecord>), expected: Option<u64>| {
            let mut changed = records.clone();
            change(&mut changed);
            assert_eq!(broken(&changed).map(|record| record.number), expected);
        };
        check(&|_| {}, None);
        check(&|records| records[1].line.push('x'), Some(2));
        check(&|records| records[2].hash = records[1].hash.clone(), Some(2));
        check(&|records| drop(records.remove(1)), Some(3));
    }
}
