//! How a verb says how far it is. Whoever draws it lives elsewhere.

/// How much there is to do, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// Files, where known.
    pub files: Option<u64>,
    /// Bytes, where known.
    pub bytes: Option<u64>,
}

/// A window that has opened: the service is about to be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenWindow {
    /// How long it will be open, as far as that can be known.
    pub estimate: Option<std::time::Duration>,
    /// How long it may be open.
    pub longest: std::time::Duration,
}

/// Told by any thread of a verb. Nothing here can fail, and nothing waits for a reader.
pub trait Progress: Send + Sync {
    /// A new phase begins (`reading`, `packing` ...); the one before is over, counts begin at 0.
    fn phase(&self, name: &str, total: Option<Total>);
    /// So many more files and bytes of the phase are done. Cheap enough to be called for each file.
    fn advance(&self, files: u64, bytes: u64);
    /// A window opened at this moment; `None`: it is closed.
    fn window(&self, open: Option<OpenWindow>);
    /// A remark for people.
    fn message(&self, text: &str);
    /// A warning, kept for the result.
    fn warn(&self, text: &str);
    /// Nothing more will come; what was drawn is taken away.
    fn finish(&self);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _: &str, _: Option<Total>) {}
    fn advance(&self, _: u64, _: u64) {}
    fn window(&self, _: Option<OpenWindow>) {}
    fn message(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn finish(&self) {}
}
