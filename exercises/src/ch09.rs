//! Chapter 9, shapes and judges: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

use crate::picture::Picture;

// ANCHOR: cleanliness
/// **9.1** A reward for a clean background, from the pixels alone; between 0 and 1.
///
/// A flat picture of any brightness and a disc on a flat ground should get at least 0.8, and speckle of
/// a visible strength (a standard deviation of 0.1) at most 0.3, with a disc and without. More speckle
/// must never get more. There are many right answers. Hint: a median forgives the edge of the disc.
pub fn cleanliness(picture: &Picture) -> f64 {
    todo!("9.1: how clean the background is")
}
// ANCHOR_END: cleanliness

// ANCHOR: cheating_picture
/// **9.2** A picture that cheats. [`crate::picture::smoothness`] is a reward for a clean background, and
/// [`crate::picture::evenness`] is what was wanted. Find a picture with a smoothness of 0.95 or more
/// and an evenness below 0.2. `crate::picture::picture` makes one from rows and columns.
pub fn cheating_picture() -> Picture {
    todo!("9.2: full reward, and not at all what was wanted")
}
// ANCHOR_END: cheating_picture
