//! Characters that must not reach a terminal or a log as they are when strangers chose them.

/// Not shown as what it is: a control character, or one that breaks lines or turns the direction of those around it
/// (Unicode TR 36 §2.5).
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_is_told_from_what_is_read() {
        for c in ['\0', '\n', '\u{7f}', '\u{85}', '\u{9b}', '\u{200e}', '\u{2028}', '\u{202e}', '\u{2066}'] {
            assert!(is_deceptive(c), "{c:?}");
        }
        for c in [' ', 'a', '"', 'é', 'א', 'ا', '漢', '\u{200d}', '😀'] {
            assert!(!is_deceptive(c), "{c:?}");
        }
    }
}
