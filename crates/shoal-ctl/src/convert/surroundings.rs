//! What a file may ask for: other files, and the environment.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::site_files::read_text;

/// Most entries of directories that are looked through for one pattern.
const MAX_ENTRIES: usize = 100_000;

/// Where included files come from.
pub trait Surroundings {
    /// The text of `file`, of at most `max_bytes`. Errs with why it cannot be had.
    fn read(&self, file: &Path, max_bytes: usize) -> Result<String, String>;
    /// The files whose paths match `pattern` (`*`, `?` and `[a-z]` within a name), in order.
    fn matching(&self, pattern: &Path) -> Vec<PathBuf>;
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The file system and environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Surroundings for Disk {
    fn read(&self, file: &Path, max_bytes: usize) -> Result<String, String> {
        read_text(file, max_bytes)
    }

    fn matching(&self, pattern: &Path) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::new()];
        let mut left = MAX_ENTRIES;
        for component in pattern.components() {
            let name = component.as_os_str().to_string_lossy();
            if !matches!(component, Component::Normal(_)) || !is_pattern(&name) {
                found.iter_mut().for_each(|path| path.push(component));
                continue;
            }
            let mut next = Vec::new();
            for dir in &found {
                let dir_to_read = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
                let entries = fs::read_dir(dir_to_read).into_iter().flatten().flatten().take(left);
                for entry in entries {
                    left -= 1;
                    let entry = entry.file_name();
                    let text = entry.to_string_lossy();
                    // As the shell has it: hidden files are asked for by their dot.
                    if (!text.starts_with('.') || name.starts_with('.')) && matches_name(&name, &text) {
                        next.push(dir.join(&entry));
                    }
                }
            }
            found = next;
        }
        found.retain(|path| path.is_file());
        found.sort();
        found
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// `name` stands for more than itself.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Whether `name` matches `pattern`. Goes back to the last `*` only, so it takes no more than their product.
pub(super) fn matches_name(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            retry = Some((p, n));
        } else if let Some(length) = pattern.get(p..).and_then(|rest| matches_one(rest, name[n])) {
            p += length;
            n += 1;
        } else if let Some((after_star, from)) = retry {
            (p, n) = (after_star, from + 1);
            retry = Some((p, n));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// How much of `pattern` stands for `c`, which it begins with.
fn matches_one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            let end = pattern.iter().skip(2).position(|&c| c == ']')? + 2;
            let set = &pattern[1..end];
            let (negated, set) = match set.first() {
                Some('!' | '^') => (true, &set[1..]),
                _ => (false, set),
            };
            let mut holds = false;
            let mut at = 0;
            while at < set.len() {
                if set.get(at + 1) == Some(&'-') && at + 2 < set.len() {
                    holds |= (set[at]..=set[at + 2]).contains(&c);
                    at += 3;
                } else {
                    holds |= set[at] == c;
                    at += 1;
                }
            }
            (holds != negated).then_some(end + 1)
        }
        &one => (one == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_the_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", true),
            ("*.conf", "a.conf.bak", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXc", false),
            ("?", "a", true),
            ("?", "", false),
            ("[a-c]1", "b1", true),
            ("[!a-c]1", "b1", false),
            ("[]]", "]", true),
            ("[", "[", false),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches_name(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_are_found_by_patterns_in_any_part() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/1.conf", "a/2.conf", "a/1.conf", "a/1.txt", "a/.hidden.conf"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let check = |pattern: &str, expected: &[&str]| {
            let found = Disk.matching(&dir.path().join(pattern));
            let expected: Vec<_> = expected.iter().map(|name| dir.path().join(name)).collect();
            assert_eq!(found, expected, "{pattern}");
        };
        check("*/*.conf", &["a/1.conf", "a/2.conf", "b/1.conf"]);
        check("a/1.*", &["a/1.conf", "a/1.txt"]);
        check("[ac]/2.conf", &["a/2.conf"]);
        check("c/*", &[]);
        check("*", &[]);
    }
}
