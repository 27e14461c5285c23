//! The questions of the example: pictures of handwritten digits, what is asked about them, and the right answers.
//!
//! Everything is drawn from a seed: the same arguments give the same examples. All text is lower case words separated
//! by single spaces, so that a word-level vocabulary reads and writes it without loss.

mod digits;
mod generate;
mod picture;
mod question;

pub use digits::{Digit, Split};
pub use generate::{Example, Mix, draw_index, generate};
pub use picture::Picture;
pub use question::Kind;

/// Places a digit can stand in; a picture has at most as many.
pub const ORDINALS: [&str; 4] = ["first", "second", "third", "fourth"];
