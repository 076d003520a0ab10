//! [`Report`]: what `main` returns.

use std::error::Error;
use std::fmt;

/// Any error, for `fn main() -> Result<(), Report>`: Rust prints what `main` returns in its debug form, and the debug form of this is the
/// error's own sentence.
pub struct Report(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Report {
    fn from(e: E) -> Self {
        Self(e.into())
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_prints_the_sentence() {
        let fails = || -> Result<(), Report> {
            crate::LlamaModel::from_gguf("absent.gguf")?;
            Ok(())
        };
        let shown = format!("{:?}", fails().unwrap_err());
        assert!(shown.starts_with("absent.gguf: ") && !shown.contains(['{', '"']), "{shown}");
    }
}
