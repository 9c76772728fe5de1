//! Secrets: wiped when dropped, never printed.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 secret bytes. Has no `Debug`, no `Display` and no `Clone`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Takes over the bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a primitive that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A second owner of the same secret: said aloud, because each copy is one more place to wipe.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }
}

/// A password as bytes. Has no `Debug`, no `Display` and no `Clone`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Password(Vec<u8>);

impl Password {
    /// Takes over the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the key derivation.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}
