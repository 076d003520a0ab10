//! Stop strings in streamed text: finds where the first one ends the answer, and holds back text that may turn out to be
//! the beginning of one.
//!
//! Each stop string has its own Knuth-Morris-Pratt automaton. So every byte of a text costs the same whatever the strings are,
//! and how the text was cut into pieces does not matter.

/// The most stop strings of one request.
pub const STOPS_MAX: usize = 64;
/// The longest stop string, in bytes.
pub const STOP_BYTES_MAX: usize = 4096;

/// A stop string that cannot be looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// An empty string, which would end every answer before it begins.
    #[error("stop string {0} is empty; leave it out")]
    Empty(usize),
    /// A string too long.
    #[error("stop string {idx} has {len} bytes; at most {STOP_BYTES_MAX} are accepted")]
    TooLong {
        /// Which string.
        idx: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// Too many strings.
    #[error("there are {0} stop strings; at most {STOPS_MAX} are accepted")]
    TooMany(usize),
}

/// Looks for stop strings in a text that comes in pieces.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    automata: Vec<Automaton>,
    // The end of the text so far that may be the beginning of a stop string.
    held: String,
}

/// The result of passing a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The text that can be shown now: nothing in it can belong to a stop string.
    pub text: String,
    /// Whether a stop string is complete. The text ends before it, and the rest of the piece after it is dropped.
    pub stopped: bool,
}

impl StopMatcher {
    /// A matcher for these strings. The first to be complete counts; if several become complete with the same byte, the longest
    /// does.
    ///
    /// # Errors
    ///
    /// If a string is empty or too long, or there are too many.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Result<StopMatcher, StopError> {
        if stops.len() > STOPS_MAX {
            return Err(StopError::TooMany(stops.len()));
        }
        let automata = stops
            .iter()
            .enumerate()
            .map(|(idx, stop)| match stop.as_ref().len() {
                0 => Err(StopError::Empty(idx)),
                len if len > STOP_BYTES_MAX => Err(StopError::TooLong { idx, len }),
                _ => Ok(Automaton::new(stop.as_ref())),
            })
            .collect::<Result<_, _>>()?;
        Ok(StopMatcher { automata, held: String::new() })
    }

    /// Takes the next piece of the text. After a stop string a new text begins.
    pub fn push(&mut self, piece: &str) -> Passed {
        let mut text = std::mem::take(&mut self.held);
        let n_seen = text.len();
        text.push_str(piece);
        for (offset, byte) in piece.bytes().enumerate() {
            let matched = self.automata.iter_mut().filter_map(|automaton| automaton.push(byte)).max();
            if let Some(len) = matched {
                text.truncate(n_seen + offset + 1 - len);
                self.start_anew();
                return Passed { text, stopped: true };
            }
        }
        // The bytes that an automaton has matched are the end of the text. They begin with the first byte of a character,
        // because the stop string does.
        let n_held = self.automata.iter().map(|automaton| automaton.n_matched).max().unwrap_or(0);
        self.held = text.split_off(text.len() - n_held);
        Passed { text, stopped: false }
    }

    /// Returns the text held back, once the answer has ended without a stop string, and starts anew.
    pub fn finish(&mut self) -> String {
        self.start_anew();
        std::mem::take(&mut self.held)
    }

    fn start_anew(&mut self) {
        for automaton in &mut self.automata {
            automaton.n_matched = 0;
        }
    }
}

/// Knows how much of its string the text ends with.
#[derive(Clone, Debug)]
struct Automaton {
    stop: Vec<u8>,
    // For each non-empty prefix of `stop`: the length of its longest proper suffix that is a prefix too.
    borders: Vec<usize>,
    n_matched: usize,
}

impl Automaton {
    fn new(stop: &str) -> Automaton {
        let stop = stop.as_bytes().to_vec();
        let mut borders = vec![0; stop.len()];
        let mut border = 0;
        for end in 1..stop.len() {
            while border > 0 && stop[border] != stop[end] {
                border = borders[border - 1];
            }
            border += usize::from(stop[border] == stop[end]);
            borders[end] = border;
        }
        Automaton { stop, borders, n_matched: 0 }
    }

    /// Takes a byte. If it completes the string: the string's length.
    fn push(&mut self, byte: u8) -> Option<usize> {
        while self.n_matched > 0 && self.stop[self.n_matched] != byte {
            self.n_matched = self.borders[self.n_matched - 1];
        }
        self.n_matched += usize::from(self.stop[self.n_matched] == byte);
        if self.n_matched < self.stop.len() {
            return None;
        }
        Some(self.stop.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Passed, StopError, StopMatcher};

    /// Pushes the pieces and prints what came out of each; `|` marks a stop, the last item is what `finish` gave.
    fn check(stops: &[&str], pieces: &[&str], expected: &[&str]) {
        let mut matcher = StopMatcher::new(stops).unwrap();
        let mut got = Vec::new();
        for piece in pieces {
            let Passed { text, stopped } = matcher.push(piece);
            got.push(if stopped { text + "|" } else { text });
            if stopped {
                assert_eq!(got, expected, "{stops:?} in {pieces:?}");
                return;
            }
        }
        got.push(matcher.finish());
        assert_eq!(got, expected, "{stops:?} in {pieces:?}");
    }

    #[test]
    fn text_without_stop_strings_passes() {
        check(&[], &["ab", "", "c"], &["ab", "", "c", ""]);
        check(&["x"], &["ab", "c"], &["ab", "c", ""]);
    }

    #[test]
    fn what_may_become_a_stop_string_is_held_back() {
        check(&["END"], &["an E", "N", "D!"], &["an ", "", "|"]);
        check(&["END"], &["an E", "N", "d"], &["an ", "", "ENd", ""]);
        check(&["END"], &["EEN", "ENEND of"], &["E", "ENEN|"]);
        check(&["END"], &["no E"], &["no ", "E"]);
        check(&["\n\n"], &["a\n", "b\n", "\n", "c"], &["a", "\nb", "|"]);
    }

    #[test]
    fn a_failed_beginning_may_contain_another() {
        check(&["aab"], &["a", "a", "a", "a", "b"], &["", "", "a", "a", "|"]);
        check(&["abcabd"], &["abcab", "cabd"], &["", "abc|"]);
        check(&["abcde", "cx"], &["abc", "x"], &["", "ab|"]);
        check(&["abcde", "bcy"], &["abcd", "e"], &["", "|"]);
    }

    #[test]
    fn the_first_complete_counts_and_then_the_longest() {
        check(&["bc", "abcd"], &["xabcd"], &["xa|"]);
        check(&["c", "abc", "bc"], &["xabcd"], &["x|"]);
    }

    #[test]
    fn nothing_remains_after_a_stop_string() {
        let mut matcher = StopMatcher::new(&["bc", "abcd"]).unwrap();
        for _ in 0..2 {
            assert_eq!(matcher.push("xabc"), Passed { text: "xa".into(), stopped: true });
            assert_eq!(matcher.push(""), Passed { text: String::new(), stopped: false });
            assert_eq!(matcher.finish(), "");
            assert_eq!(matcher.push("d"), Passed { text: "d".into(), stopped: false });
        }
    }

    #[test]
    fn characters_stay_whole() {
        // "è" and "é" share their first byte, "—" and "–" their first two.
        check(&["é"], &["aè", "e\u{301}é"], &["aè", "e\u{301}|"]);
        check(&["–—"], &["–", "–", "—"], &["", "–", "|"]);
        check(&["🦙."], &["🦙", "🦙", "!"], &["", "🦙", "🦙!", ""]);
    }

    #[test]
    fn any_cut_gives_the_same_text() {
        let text = "aabaaabaabéaabaaé—aabaab🦙aab";
        let stops = ["aabaab🦙", "é—b", "baé"];
        let whole = StopMatcher::new(&stops).unwrap().push(text).text;
        assert_eq!(whole, "aabaaabaabéaabaaé—");
        let chars: Vec<String> = text.chars().map(String::from).collect();
        for size in 1..chars.len() {
            let mut matcher = StopMatcher::new(&stops).unwrap();
            let mut shown = String::new();
            for piece in chars.chunks(size) {
                let Passed { text, stopped } = matcher.push(&piece.concat());
                shown += &text;
                assert!(whole.starts_with(&shown), "cut at {size}: {shown}");
                if stopped {
                    break;
                }
            }
            assert_eq!(shown, whole, "cut at {size}");
        }
    }

    #[test]
    fn bad_stop_strings_are_named() {
        assert_eq!(StopMatcher::new(&["a", ""]).unwrap_err(), StopError::Empty(1));
        let long = "x".repeat(4097);
        assert_eq!(StopMatcher::new(&[&long]).unwrap_err(), StopError::TooLong { idx: 0, len: 4097 });
        assert_eq!(StopMatcher::new(&vec!["a"; 65]).unwrap_err(), StopError::TooMany(65));
    }
}
