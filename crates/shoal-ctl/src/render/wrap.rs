//! Long lines for whoever reads them on a terminal.

/// In a narrower one than this hardly a word would fit.
const LEAST_COLUMNS: usize = 40;
/// How much deeper a line goes on than it began.
const DEEPER: usize = 4;

/// `text` in lines of so many columns, broken between words; `None` = it goes to no terminal, and whoever reads it looks for
/// whole lines.
pub fn wrapped(text: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns.map(|columns| columns.max(LEAST_COLUMNS)) else { return text.to_owned() };
    let mut lines = String::new();
    for line in text.lines() {
        wrap_line(&mut lines, line, columns);
    }
    lines
}

fn wrap_line(lines: &mut String, line: &str, columns: usize) {
    let length = |text: &str| text.chars().count();
    let words = line.trim_start();
    let indentation = line.len() - words.len();
    lines.push_str(&line[..indentation]);
    let mut used = indentation;
    for (place, word) in words.split(' ').enumerate() {
        if place > 0 && used + 1 + length(word) > columns {
            lines.push('\n');
            used = indentation + DEEPER;
            lines.push_str(&" ".repeat(used));
        } else if place > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length(word);
    }
    lines.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_between_words() {
        let check = |text: &str, columns: usize, expected: &str| {
            assert_eq!(wrapped(text, Some(columns)), expected);
        };
        let long = "revision 8 was taken back in wave 2 by revision 9: it failed";
        assert_eq!(wrapped(long, None), long);
        check("short\n\n", 80, "short\n\n");
        let in_two = "revision 8 was taken back in wave 2 by\n    revision 9: it failed\n";
        check(long, 40, in_two);
        check(long, 3, in_two);
        check(
            &format!("  {long}\nend\n"),
            40,
            "  revision 8 was taken back in wave 2 by\n      revision 9: it failed\nend\n",
        );
        let word = "x".repeat(50);
        check(&format!("a {word} ä"), 40, &format!("a\n    {word}\n    ä\n"));
    }
}
