//! What a verb ends with: an exit code, and one line that says what failed, why, and what to try.

use std::fmt::{self, Write as _};

use shoal_model::is_deceptive;
use shoal_model::site::{ProblemKind, Problems};
pub use shoal_proto::Exit;

/// Longest reason that is printed, in bytes.
const MAX_WHY_BYTES: usize = 2_000;
/// Most problems of a site file that are printed.
const MAX_PROBLEMS: usize = 50;

/// Why a verb did not do what was asked.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the process ends with.
    pub exit: Exit,
    /// What was tried.
    pub what: String,
    /// Why it failed.
    pub why: String,
    /// A command that helps.
    pub hint: Option<String>,
    /// Places in a site file, a line each, printed before the error.
    pub problems: Vec<String>,
    /// Where it comes from; absent = from here.
    pub source: Option<Box<Source>>,
}

/// Where a failure comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The node that answered: its name, or its address where it has not said how it is called. Where none answered, the
    /// addresses that were asked.
    pub node: String,
    /// The revision that it is about, where the node has said which.
    pub revision: Option<u64>,
}

impl Failure {
    /// A failure with `exit`.
    pub fn new(exit: Exit, what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { exit, what: what.into(), why: why.to_string(), hint: None, problems: Vec::new(), source: None }
    }

    /// A failure on this side.
    pub fn local(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::new(Exit::Local, what, why)
    }

    /// The same failure with a command to try.
    pub fn try_command(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with where it comes from: `node` has told of it, or has not answered.
    pub fn of_node(mut self, node: impl fmt::Display, revision: Option<u64>) -> Self {
        self.source = Some(Box::new(Source { node: node.to_string(), revision }));
        self
    }

    /// A site file with problems.
    pub fn site(what: impl Into<String>, problems: &Problems) -> Self {
        // A file that cannot even be read is not mended by a look at the schema.
        if let [problem] = &problems.0[..]
            && problem.kind == ProblemKind::Unread
        {
            return Self::local(what, problem).try_command("shoal validate --help");
        }
        let count = problems.0.len();
        let mut why = format!("the site has {count} problem{}", if count == 1 { "" } else { "s" });
        if problems.0.iter().any(|problem| problem.kind == ProblemKind::Form) {
            why.push_str(", and what follows it was not read");
        }
        Self { problems: problems.lines(MAX_PROBLEMS), ..Self::local(what, why) }
            .try_command("shoal config schema")
    }

    /// What goes to stderr in text: the problems, then `error: <what>: <why>; try: <command>`.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&one_line(problem));
            text.push('\n');
        }
        let _ = write!(text, "error: {}: {}", one_line(&self.what), one_line(&self.why));
        if let Some(hint) = &self.hint {
            let _ = write!(text, "; try: {hint}");
        }
        text.push('\n');
        text
    }

    /// The same as one JSON object, for `-o json`.
    pub fn to_json(&self) -> String {
        let mut object = serde_json::json!({
            "code": self.exit as u8,
            "message": format!("{}: {}", self.what, self.why),
            "details": self.problems,
        });
        if let Some(hint) = &self.hint {
            object["try"] = hint.as_str().into();
        }
        if let Some(Source { node, revision }) = self.source.as_deref() {
            object["node"] = node.as_str().into();
            if let Some(revision) = revision {
                object["revision"] = (*revision).into();
            }
        }
        format!("{object}\n")
    }
}

/// Text from elsewhere with such characters written as escapes, so that it can be told from other text.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_deceptive(c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

/// Text from elsewhere as one bounded line without characters that deceive.
pub fn one_line(text: &str) -> String {
    let mut line = text.trim().replace('\r', "").replace('\n', "; ");
    if line.chars().any(is_deceptive) {
        line = line.chars().map(|c| if is_deceptive(c) { '\u{fffd}' } else { c }).collect();
    }
    if line.len() > MAX_WHY_BYTES {
        line.truncate(line.floor_char_boundary(MAX_WHY_BYTES));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use shoal_model::site::Problem;

    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::new(Exit::Remote, "status", "no node answers\nat \u{1b}[31m10.0.0.1")
            .try_command("shoal --socket DIR/admin.sock status");
        assert_eq!(
            failure.to_text(),
            "error: status: no node answers; at \u{fffd}[31m10.0.0.1; try: shoal --socket DIR/admin.sock status\n"
        );
        assert!(failure.to_json().starts_with("{\"code\":2,"), "{}", failure.to_json());
        let unread = Problem::at("", "site.yaml cannot be read").of_kind(ProblemKind::Unread);
        assert_eq!(
            Failure::site("plan", &Problems(vec![unread])).to_text(),
            "error: plan: site.yaml cannot be read; try: shoal validate --help\n"
        );
        assert!(Failure::local("x", "y".repeat(10_000)).to_text().len() < 2_100);
    }

    #[test]
    fn json_says_where_a_failure_comes_from() {
        let failure = Failure::new(Exit::Conflict, "apply", "no").try_command("shoal history");
        for (failure, expected) in [
            (failure.clone(), r#"{"code":4,"details":[],"message":"apply: no","try":"shoal history"}"#),
            (
                failure.clone().of_node("n1", Some(8)),
                r#"{"code":4,"details":[],"message":"apply: no","node":"n1","revision":8,"try":"shoal history"}"#,
            ),
            (
                failure.of_node("10.0.0.1:7401", None),
                r#"{"code":4,"details":[],"message":"apply: no","node":"10.0.0.1:7401","try":"shoal history"}"#,
            ),
        ] {
            let [told, expected] = [&*failure.to_json(), expected]
                .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn problems_come_first_and_are_bounded() {
        let problems = Problems((0..60).map(|n| Problem::at(format!("routes.r{n}"), "wrong")).collect());
        let text = Failure::site("validate", &problems).to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 52);
        assert_eq!(lines[0], "routes.r0: wrong");
        assert_eq!(lines[50], "… and 10 more");
        assert_eq!(lines[51], "error: validate: the site has 60 problems; try: shoal config schema");
    }

    #[test]
    fn codes_are_the_contract() {
        for code in 0..=6 {
            assert_eq!(Exit::from_code(code).map(|exit| exit as u8), Some(code));
        }
        assert_eq!(Exit::from_code(7), None);
    }
}
