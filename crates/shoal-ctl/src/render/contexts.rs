//! Clusters by name.

use super::table::Columns;
use crate::contexts::Context;
use crate::failure::one_line;

/// A row per context; the one that is used is marked.
pub fn contexts<'a>(rows: impl Iterator<Item = (bool, &'a str, &'a Context)>) -> String {
    let mut columns = Columns::new(["", "NAME", "CLUSTER", "BY", "IDENTITY"]);
    for (current, name, context) in rows {
        let by = match &context.socket {
            Some(socket) => socket.display().to_string(),
            None => context.addr.join(","),
        };
        let identity = context.identity.as_ref().or(context.cert.as_ref());
        let identity = identity.map(|path| one_line(&path.display().to_string())).unwrap_or_default();
        let mark = if current { "*" } else { "" };
        columns.row([mark.to_owned(), one_line(name), one_line(&context.cluster), one_line(&by), identity]);
    }
    columns.text()
}
