//! Columns without lines, as operators' tools print them.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use crate::failure::one_line;

/// Rows of text under a heading; nodes' words are made harmless for the terminal.
pub(super) struct Columns {
    table: Table,
}

impl Columns {
    pub(super) fn new<const N: usize>(heading: [&str; N]) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heading);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { one_line(&cell) }));
    }

    /// The table, each line ended, nothing when there are no rows.
    pub(super) fn text(&self) -> String {
        if self.table.is_empty() { String::new() } else { self.table.trim_fmt() + "\n" }
    }
}
