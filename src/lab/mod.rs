//! Measuring: how right a model's answers are with each way to keep visual tokens, and what they cost. For people who compare methods; a program that
//! chats about videos needs nothing of it.

pub mod cost;
pub mod eval;
pub mod report;
pub mod results;
