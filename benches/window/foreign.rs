//! Processes of others: this program once more, which opens files beside the tree and waits.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::options::Options;

const WORD: &str = "--foreign";

/// Whether this process is one of them.
pub(crate) fn is_one(words: &[String]) -> bool {
    words.first().is_some_and(|word| word == WORD)
}

/// Opens what it was told to, says so, and waits for its input to end.
pub(crate) fn stay(words: &[String]) {
    let [_, file, count] = words else { return };
    let count: usize = count.parse().unwrap();
    let held: Vec<std::fs::File> = (0..count).map(|_| std::fs::File::open(file).unwrap()).collect();
    println!("here");
    // However it ends, the wait is over.
    let _ = std::io::stdin().read(&mut [0]);
    drop(held);
}

/// All of them; they end with this.
pub(crate) struct Foreign(Vec<Child>);

impl Foreign {
    /// Lets them begin, and waits until each has its files open. They lie on the file system of the
    /// tree, but beside it.
    pub(crate) fn begin(options: &Options, place: &Path) -> Self {
        let program = std::env::current_exe().unwrap();
        // Input and output are descriptors, too.
        let own = options.descriptors.saturating_sub(3).to_string();
        let mut all = Self(Vec::new());
        for number in 0..options.processes {
            let file = place.join(format!("beside-{}", number % 50));
            std::fs::write(&file, "beside").unwrap();
            let mut command = Command::new(&program);
            command.arg(WORD).arg(&file).arg(&own);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            all.0.push(command.spawn().unwrap());
        }
        for child in &mut all.0 {
            let mut said = [0; 5];
            child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        }
        all
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.stdin.take());
        }
        for child in &mut self.0 {
            // One that is gone already has ended as it should.
            let _ = child.wait();
        }
    }
}
