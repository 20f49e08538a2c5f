//! What a node checks before it proposes a command: whoever has it written by another node is held to the same.

use super::{Admission, Command, NameError, OperatorRecord, RecordError, UnknownLimit, check_member_name};
use crate::{Role, UnknownRole};

/// Longest serial number, hex digits: RFC 5280 §4.1.2.2 allows 20 bytes, and DER a sign before them.
const MAX_SERIAL: usize = 42;

/// A command that says what no node proposes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Of a member.
    #[error(transparent)]
    Member(#[from] RecordError),
    /// Of an operator.
    #[error("the operator's name: {0}")]
    Operator(#[from] NameError),
    /// Of one, too.
    #[error(transparent)]
    Role(#[from] UnknownRole),
    /// Of a certificate.
    #[error("a serial number has 1 to {MAX_SERIAL} hex digits")]
    Serial,
    /// Of the cluster.
    #[error(transparent)]
    Limit(#[from] UnknownLimit),
}

impl Command {
    /// Whether a node could propose it, by what it says alone.
    pub fn check_content(&self) -> Result<(), ContentError> {
        match self.innermost() {
            Self::Admit(Admission { node: record, .. }) | Self::UpdateNode { record, .. } => {
                record.check()?
            }
            Self::GiveCertificate { serial, record } => check_certificate(serial, record)?,
            Self::RevokeOperator { name, .. } => check_member_name(name)?,
            Self::ChangeSetup(order) => order.check()?,
            _ => {}
        }
        Ok(())
    }
}

fn check_certificate(serial: &str, record: &OperatorRecord) -> Result<(), ContentError> {
    check_member_name(&record.name)?;
    record.role.parse::<Role>()?;
    let is_hex = serial.bytes().all(|digit| digit.is_ascii_hexdigit());
    if serial.is_empty() || serial.len() > MAX_SERIAL || !is_hex {
        return Err(ContentError::Serial);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;
    use crate::state::{Asker, MemberRecord, SetupOrder};

    fn check(command: &Command, expected: &str) {
        let told = command.check_content().map_or_else(|error| error.to_string(), |()| String::new());
        assert_eq!(told, expected);
        let asked = command.clone().asked_by(vec![Asker::default()]);
        assert_eq!(asked.check_content(), command.check_content());
    }

    #[test]
    fn members_have_names_and_addresses() {
        let names = |name: &str| format!("names have 1 to 63 letters, digits, '-', '_' or '.', not {name:?}");
        let address = |address: &str| format!("{address:?} is not an address");
        let long = "x".repeat(700_000);
        let zeros = format!("10.0.0.1:{}1", "0".repeat(700_000));
        for (name, zone, admin_addr, expected) in [
            ("n1", "a", "10.0.0.1:7401", String::new()),
            ("n1", "a", "[fe80::1%3]:7401", String::new()),
            ("", "a", "10.0.0.1:7401", names("")),
            (long.as_str(), "a", "10.0.0.1:7401", names(&long[..80])),
            ("n1", "a\n\u{1b}[2J", "10.0.0.1:7401", names("a\n\u{1b}[2J")),
            ("n1", "a", "", address("")),
            ("n1", "a", "nowhere", address("nowhere")),
            ("n1", "a", zeros.as_str(), address(&zeros[..80])),
        ] {
            let record = MemberRecord {
                name: name.to_owned(),
                region: "a".to_owned(),
                zone: zone.to_owned(),
                cluster_addr: "10.0.0.1:7400".to_owned(),
                admin_addr: admin_addr.to_owned(),
                ..MemberRecord::default()
            };
            let admission = Admission {
                token_id: "t".to_owned(),
                secret_sha256: "s".to_owned(),
                at_ms: 1,
                node: record.clone(),
            };
            check(&Command::Admit(admission), &expected);
            check(&Command::UpdateNode { node_id: NodeId(1), record }, &expected);
        }
    }

    #[test]
    fn operators_have_names_roles_and_serial_numbers() {
        let serial = "a serial number has 1 to 42 hex digits";
        let names = "the operator's name: names have 1 to 63 letters, digits, '-', '_' or '.', not \"\"";
        let long = "0".repeat(43);
        for (name, role, number, expected) in [
            ("ada", "admin", "0a", ""),
            ("", "admin", "0a", names),
            ("ada", "god", "0a", "there is no role \"god\"; viewer, operator and admin are"),
            ("ada", "", "0a", "there is no role \"\"; viewer, operator and admin are"),
            ("ada", "viewer", "", serial),
            ("ada", "viewer", "x", serial),
            ("ada", "viewer", long.as_str(), serial),
        ] {
            let (name, role) = (name.to_owned(), role.to_owned());
            let record = OperatorRecord { name, role, ..OperatorRecord::default() };
            check(&Command::GiveCertificate { serial: number.to_owned(), record }, expected);
        }
        check(&Command::RevokeOperator { name: String::new(), at_ms: 1 }, names);
        check(&Command::RevokeOperator { name: "ada".to_owned(), at_ms: 1 }, "");
    }

    #[test]
    fn clusters_have_as_many_voters_as_they_may_be_told() {
        for (max_voters, fits) in [
            (None, true),
            (Some(3), true),
            (Some(7), true),
            (Some(0), false),
            (Some(2), false),
            (Some(255), false),
        ] {
            let order = SetupOrder { timing: None, max_voters };
            assert_eq!(Command::ChangeSetup(order).check_content().is_ok(), fits, "{max_voters:?}");
        }
    }
}
