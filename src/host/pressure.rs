//! How long others wait for I/O, as the kernel counts it (`/proc/pressure/io`).

use std::time::Duration;

const FILE: &str = "/proc/pressure/io";

/// For how long, since the machine started, at least one task was waiting for I/O; `None` where the
/// kernel does not count it.
#[must_use]
pub fn io_stalled() -> Option<Duration> {
    parse(&std::fs::read_to_string(FILE).ok()?)
}

fn parse(text: &str) -> Option<Duration> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some.split(' ').find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_counts() {
        let text = "some avg10=1.53 avg60=0.00 avg300=2.10 total=1250000\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(parse(text), Some(Duration::from_millis(1250)));
        for odd in ["", "full avg10=0.00 total=7\n", "some total=x\n", "some avg10=0.00\n"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
        // Where the kernel counts it, it never goes back.
        if let Some(first) = io_stalled() {
            assert!(io_stalled().unwrap() >= first);
        }
    }
}
