//! Questions and answers in the words that `smol` was trained on. "Describe the video." is missing: its answers are so
//! long that `smol` gets hardly any of them right.

use super::backdrop::COLORS;
use super::random::Random;
use super::things::THINGS;

/// One question about a clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The question.
    pub question: String,
    /// All possible answers; empty if there are too many.
    pub choices: Vec<String>,
    /// The right answer.
    pub answer: String,
}

/// Directions, with their steps to the right and down.
pub const DIRECTIONS: [(&str, [i32; 2]); 4] = [("left", [-1, 0]), ("right", [1, 0]), ("up", [0, -1]), ("down", [0, 1])];

/// A name with "a" or "an".
fn a(thing: &str) -> String {
    let article = if thing.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {thing}")
}

/// What is in the video, with one or two things.
pub fn what(things: &[&str]) -> Question {
    let named: Vec<String> = things.iter().map(|thing| a(thing)).collect();
    Question {
        question: "What is in the video?".into(),
        choices: Vec::new(),
        answer: format!("There is {}.", named.join(" and ")),
    }
}

/// What color the background has, by its number.
pub fn color(color: usize) -> Question {
    let sentence = |name: &str| format!("The background is {name}.");
    Question {
        question: "What color is the background?".into(),
        choices: COLORS.iter().map(|(name, _)| sentence(name)).collect(),
        answer: sentence(COLORS[color].0),
    }
}

/// Whether `thing` is there.
pub fn is_this_there(thing: &str, is_there: bool) -> Question {
    let choices = ["Yes.", "No."];
    Question {
        question: format!("Is there {} in the video?", a(thing)),
        choices: choices.map(str::to_owned).into(),
        answer: choices[usize::from(!is_there)].into(),
    }
}

/// Two questions: whether one of `things` is there, and whether an absent thing is.
pub fn is_there(things: &[&str], random: &mut Random) -> [Question; 2] {
    let there = things[random.below(things.len())];
    let absent: Vec<&str> = THINGS.iter().map(|(name, _)| *name).filter(|name| !things.contains(name)).collect();
    let absent = absent[random.below(absent.len())];
    [is_this_there(there, true), is_this_there(absent, false)]
}

/// Which way `thing` moves; `None` if it does not.
pub fn which_way(thing: &str, direction: Option<&str>) -> Question {
    let sentence = |direction: Option<&str>| match direction {
        Some(direction) => format!("The {thing} moves {direction}."),
        None => format!("The {thing} does not move."),
    };
    Question {
        question: format!("Which way does the {thing} move?"),
        choices: DIRECTIONS.iter().map(|(name, _)| Some(*name)).chain([None]).map(sentence).collect(),
        answer: sentence(direction),
    }
}

/// For which of some things a sentence is true.
fn one_of(things: &[&str], right: &str, question: &str, ending: &str) -> Question {
    let sentence = |thing: &str| format!("The {thing} {ending}");
    let mut choices: Vec<String> = things.iter().map(|thing| sentence(thing)).collect();
    // Otherwise, the order would reveal the answer.
    choices.sort_unstable();
    Question { question: question.into(), choices, answer: sentence(right) }
}

/// What appears first.
pub fn first(things: [&str; 2]) -> Question {
    one_of(&things, things[0], "What appears first?", "appears first.")
}

/// What appears last.
pub fn last(things: [&str; 2]) -> Question {
    last_of(&things)
}

/// What appears last of things in order. There must be at least one.
pub fn last_of(things: &[&str]) -> Question {
    one_of(things, things[things.len() - 1], "What appears last?", "appears last.")
}

/// What is on the left and on the right.
pub fn sides(things: [&str; 2]) -> [Question; 2] {
    ["left", "right"].map(|side| {
        let right = things[usize::from(side == "right")];
        one_of(&things, right, &format!("What is on the {side}?"), &format!("is on the {side}."))
    })
}
