//! Patterns that choose layers or parameters by name.

use super::file::did_you_mean;

/// A list of patterns. `*` stands for any text, `?` for one character; a pattern that fits
/// the beginning of a name up to a dot fits the name: `layer1` chooses
/// `layer1.0.conv1.weight`. A name is chosen by the last pattern that fits it, unless that
/// begins with `!`: `*` and `!fc` choose all but `fc`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patterns<'a>(pub &'a [String]);

impl<'a> Patterns<'a> {
    /// Which pattern decides about a name, if any fits.
    fn decisive(self, name: &str) -> Option<&'a str> {
        let patterns = self.0.iter().rev();
        let mut found = patterns.filter(|p| fits(p.trim_start_matches('!'), name));
        found.next().map(String::as_str)
    }

    /// Whether a name is chosen.
    pub(crate) fn choose(self, name: &str) -> bool {
        self.decisive(name).is_some_and(|p| !p.starts_with('!'))
    }

    /// The pattern that chooses a name, by its place in the list.
    pub(crate) fn place(self, name: &str) -> Option<usize> {
        self.0.iter().rposition(|p| fits(p, name))
    }

    /// What is wrong with the first pattern that fits none of the names.
    pub(crate) fn check(self, names: &[&str]) -> Result<(), String> {
        for pattern in self.0 {
            let bare = pattern.trim_start_matches('!');
            if !names.iter().any(|name| fits(bare, name)) {
                const SHOWN: usize = 12;
                let more = match names.len().saturating_sub(SHOWN) {
                    0 => String::new(),
                    n => format!(" and {n} more"),
                };
                return Err(format!(
                    "{pattern:?} fits no name{}; there are {}{more}",
                    did_you_mean(bare, names),
                    names[..names.len().min(SHOWN)].join(", "),
                ));
            }
        }
        Ok(())
    }
}

/// Whether a pattern fits a name or its beginning up to a dot.
fn fits(pattern: &str, name: &str) -> bool {
    let dots = name.match_indices('.').map(|(at, _)| &name[..at]);
    dots.chain([name]).any(|part| glob(pattern, part))
}

/// Whether a pattern with `*` and `?` fits all of a text.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // Where the last star stands, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_fit_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("conv1", "conv1", true),
            ("conv1", "conv10", false),
            ("conv?", "conv10", false),
            ("conv*", "conv10", true),
            ("*.bias", "layer1.0.conv1.bias", true),
            ("l*1*conv?", "layer1.0.conv1", true),
            ("*a*b", "xaxbxa", false),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_beginning_up_to_a_dot_fits_and_the_last_pattern_decides() {
        let patterns = ["*", "!layer4", "layer4.1.bn2"].map(String::from);
        let patterns = Patterns(&patterns);
        for (name, expected) in [
            ("conv1.weight", true),
            ("layer4.0.conv1.weight", false),
            ("layer4.1.bn2.bias", true),
            ("layer40.weight", true),
        ] {
            assert_eq!(patterns.choose(name), expected, "{name}");
        }
    }

    #[test]
    fn a_pattern_that_fits_nothing_is_told_with_the_nearest_name() {
        let patterns = ["layre1".to_owned()];
        let problem = Patterns(&patterns).check(&["conv1", "layer1"]).unwrap_err();
        assert!(problem.contains("\"layre1\" fits no name"), "{problem}");
        assert!(problem.contains("did you mean \"layer1\""), "{problem}");
    }
}
