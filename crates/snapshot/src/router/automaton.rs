//! Regular expressions over bytes: matched whole, and compared as languages.
//!
//! Two questions are answered here, both within a bound: is there a word that all of these
//! accept, and a word that these accept and those refuse? Routing needs only `is_match`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use regex_automata::dfa::{Automaton as _, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::{Anchored, Input, MatchKind, meta};
use regex_syntax::hir::{Hir, Look};

/// Longest source of an expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 2048;
/// Largest compiled expression, in bytes.
const PROGRAM_BYTES_MAX: usize = 1 << 20;
/// Largest automaton built for a comparison, in bytes.
const AUTOMATON_BYTES_MAX: usize = 8 << 20;
/// Most states visited by a comparison.
const STATES_MAX: usize = 200_000;

/// A regular expression that matches whole values, byte by byte (`.` is any byte).
#[derive(Clone)]
pub struct Expression {
    inner: Arc<Inner>,
}

struct Inner {
    source: String,
    program: meta::Regex,
    whole: Hir,
}

impl Expression {
    /// # Errors
    /// When the source does not parse, or is too large compiled.
    pub fn new(source: &str) -> Result<Self, ExpressionError> {
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(ExpressionError(format!("is longer than {EXPRESSION_BYTES_MAX} bytes")));
        }
        // Unicode classes are off: a class that skips bytes that are not UTF-8 would let a
        // request with such bytes past a condition that its author meant for everything.
        let mut parser = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .dot_matches_new_line(true)
            .nest_limit(64)
            .build();
        let parsed = parser.parse(source).map_err(|error| {
            ExpressionError(match error {
                regex_syntax::Error::Parse(error) => error.kind().to_string(),
                regex_syntax::Error::Translate(error) => error.kind().to_string(),
                _ => "does not parse".to_owned(),
            })
        })?;
        let whole = Hir::concat(vec![Hir::look(Look::Start), parsed, Hir::look(Look::End)]);
        let config = meta::Config::new()
            .match_kind(MatchKind::All)
            .utf8_empty(false)
            .nfa_size_limit(Some(PROGRAM_BYTES_MAX))
            .hybrid_cache_capacity(PROGRAM_BYTES_MAX);
        let program = meta::Builder::new()
            .configure(config)
            .build_from_hir(&whole)
            .map_err(|_| ExpressionError("is too large when compiled".to_owned()))?;
        Ok(Self { inner: Arc::new(Inner { source: source.to_owned(), program, whole }) })
    }

    #[must_use]
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    #[must_use]
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.inner.program.is_match(Input::new(value).anchored(Anchored::Yes))
    }

    /// `None` when the automaton would be too large, or cannot be built for its look-arounds.
    pub(super) fn language(&self) -> Option<Language> {
        Language::build(std::slice::from_ref(&self.inner.whole))
    }

    fn hir(&self) -> Hir {
        self.inner.whole.clone()
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.inner.source)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.inner.source == other.inner.source
    }
}

/// Completes a sentence that begins with "the expression".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError(String);

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExpressionError {}

/// A set of byte strings, as a deterministic automaton.
pub(super) struct Language {
    automaton: dense::DFA<Vec<u32>>,
    start: StateID,
}

impl Language {
    /// The union of expressions.
    pub(super) fn union(expressions: &[Expression]) -> Option<Self> {
        let all: Vec<Hir> = expressions.iter().map(Expression::hir).collect();
        Self::build(&all)
    }

    fn build(all: &[Hir]) -> Option<Self> {
        let program = thompson::Compiler::new()
            .configure(
                thompson::Config::new()
                    .utf8(false)
                    .which_captures(thompson::WhichCaptures::None)
                    .nfa_size_limit(Some(AUTOMATON_BYTES_MAX)),
            )
            .build_many_from_hir(all)
            .ok()?;
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(regex_automata::dfa::StartKind::Anchored)
            .accelerate(false)
            .dfa_size_limit(Some(AUTOMATON_BYTES_MAX))
            .determinize_size_limit(Some(AUTOMATON_BYTES_MAX));
        let automaton = dense::Builder::new().configure(config).build_from_nfa(&program).ok()?;
        let start = automaton.start_state_forward(&Input::new(b"").anchored(Anchored::Yes)).ok()?;
        Some(Self { automaton, start })
    }

    fn accepts(&self, state: StateID) -> bool {
        self.automaton.is_match_state(self.automaton.next_eoi_state(state))
    }
}

pub(super) enum Search {
    /// A shortest word.
    Word(Vec<u8>),
    /// There is none.
    Empty,
    /// Not decided within the bound.
    Unknown,
}

/// A shortest word over `alphabet` in all of `inside` and none of `outside`.
///
/// Where several bytes lead to the same states the first of `alphabet` stands for them all, so
/// the order of `alphabet` decides how readable the word is.
pub(super) fn shortest(inside: &[&Language], outside: &[&Language], alphabet: &[u8]) -> Search {
    let all: Vec<&Language> = inside.iter().chain(outside).copied().collect();
    let letters = representatives(&all, alphabet);
    let start: Vec<StateID> = all.iter().map(|language| language.start).collect();
    let accepted = |states: &[StateID]| {
        let mut verdicts = all.iter().zip(states).map(|(language, s)| language.accepts(*s));
        verdicts.by_ref().take(inside.len()).all(|yes| yes) && !verdicts.any(|yes| yes)
    };
    // Each visited state keeps how it was reached, so that the word can be read back.
    let mut reached: Vec<(Vec<StateID>, usize, u8)> = vec![(start.clone(), usize::MAX, 0)];
    let mut seen: HashMap<Vec<StateID>, ()> = HashMap::from([(start, ())]);
    let mut queue = VecDeque::from([0_usize]);
    while let Some(at) = queue.pop_front() {
        let states = reached[at].0.clone();
        if accepted(&states) {
            return Search::Word(read_back(&reached, at));
        }
        for letter in &letters {
            let next: Vec<StateID> = all
                .iter()
                .zip(&states)
                .map(|(language, state)| language.automaton.next_state(*state, *letter))
                .collect();
            let quit = all.iter().zip(&next).any(|(l, s)| l.automaton.is_quit_state(*s));
            if quit {
                return Search::Unknown;
            }
            let hopeless = inside.iter().zip(&next).any(|(l, s)| l.automaton.is_dead_state(*s));
            if hopeless || seen.contains_key(&next) {
                continue;
            }
            if reached.len() >= STATES_MAX {
                return Search::Unknown;
            }
            seen.insert(next.clone(), ());
            reached.push((next, at, *letter));
            queue.push_back(reached.len() - 1);
        }
    }
    Search::Empty
}

fn read_back(reached: &[(Vec<StateID>, usize, u8)], mut at: usize) -> Vec<u8> {
    let mut word = Vec::new();
    while reached[at].1 != usize::MAX {
        word.push(reached[at].2);
        at = reached[at].1;
    }
    word.reverse();
    word
}

/// One byte for each way in which the automata can tell bytes apart.
fn representatives(all: &[&Language], alphabet: &[u8]) -> Vec<u8> {
    let mut seen: HashMap<Vec<u8>, ()> = HashMap::new();
    let mut letters = Vec::new();
    for byte in alphabet {
        let key: Vec<u8> =
            all.iter().map(|language| language.automaton.byte_classes().get(*byte)).collect();
        if seen.insert(key, ()).is_none() {
            letters.push(*byte);
        }
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(source: &str) -> Expression {
        Expression::new(source).unwrap()
    }

    fn common(a: &str, b: &str) -> Option<String> {
        let (a, b) = (expression(a).language().unwrap(), expression(b).language().unwrap());
        match shortest(&[&a, &b], &[], b"abcdefghijklmnopqrstuvwxyz0123456789/-") {
            Search::Word(word) => Some(String::from_utf8(word).unwrap()),
            Search::Empty => None,
            Search::Unknown => panic!("undecided"),
        }
    }

    #[test]
    fn an_expression_matches_the_whole_value_or_nothing() {
        assert!(expression("a|b").is_match(b"b"));
        assert!(!expression("a|b").is_match(b"ab"));
        assert!(!expression("(?x) a # comment").is_match(b"ab"));
        assert!(expression("a|ab").is_match(b"ab"));
        assert!(expression(".*").is_match(b"\xff\n\0"));
        assert!(!expression("^a$").is_match(b"a\n"));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        assert!(Expression::new("((a{1000}){1000}){1000}").is_err());
        assert!(Expression::new(&"a".repeat(3000)).is_err());
        assert_eq!(Expression::new("a)|(b").unwrap_err().to_string(), "unopened group");
    }

    #[test]
    fn a_common_word_is_found_or_excluded() {
        assert_eq!(common("/v[0-9]+/.*", "/v1.*/x"), Some("/v1/x".to_owned()));
        assert_eq!(common("/a+", "/b+"), None);
        let (a, b) = (expression("/[a-c]").language().unwrap(), expression("/[ab]").language());
        let Search::Word(word) = shortest(&[&a], &[&b.unwrap()], b"abc/") else { panic!() };
        assert_eq!(word, b"/c");
    }
}
