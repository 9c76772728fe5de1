//! The proof that something was read while nothing moved (invariant 4). A snapshot is made of
//! nothing else.
//!
//! The field is private, and the only way in leads past the evidence:
//!
//! ```compile_fail,E0603
//! let forged = cabk::intake::consistent::Consistent(7);
//! ```
//! ```compile_fail,E0308
//! fn from_what_moved(disturbed: &cabk::window::phases::Disturbed) {
//!     cabk::intake::consistent::Consistent::mint(7, disturbed);
//! }
//! ```
//! ```compile_fail,E0382
//! use cabk::window::phases::Undisturbed;
//! fn after_the_start(proof: Undisturbed) {
//!     proof.restart();
//!     cabk::intake::consistent::Consistent::mint(7, &proof);
//! }
//! ```
//! ```compile_fail,E0277
//! let forged: cabk::intake::consistent::Consistent<u8> = Default::default();
//! ```

use crate::window::phases::{Undisturbed, Vouched};

/// A value that was read in a window whose evidence all held.
#[derive(Debug, PartialEq, Eq)]
pub struct Consistent<T>(T);

impl<T> Consistent<T> {
    /// Vouches for a value. The proof exists only while the window is still open.
    #[must_use]
    pub fn mint(value: T, _proof: &Undisturbed) -> Self {
        Self(value)
    }

    /// Vouches for a value that was read, after the start, from what had been frozen in the window.
    #[must_use]
    pub fn of_frozen(value: T, _proof: &Vouched) -> Self {
        Self(value)
    }

    /// The value.
    #[must_use]
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// What is made of the value alone has moved as little as the value.
    #[must_use]
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Consistent<U> {
        Consistent(make(self.0))
    }

    /// As [`Self::map`], where making may fail.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_map<U, E>(self, make: impl FnOnce(T) -> Result<U, E>) -> Result<Consistent<U>, E> {
        Ok(Consistent(make(self.0)?))
    }

    /// The value, without its proof.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}
