//! Bearer tokens: read from the environment, never printed.

use std::{env, fmt};

use thiserror::Error;

/// A bearer token. Its `Debug` output hides the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// A token cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// The environment variable is not set, or is not UTF-8.
    #[error("the environment variable {0} is not set; it should hold the judge's token")]
    Unset(String),
    /// The token is empty or has a character that an HTTP header cannot carry.
    #[error("a token has one or more visible ASCII characters; this one is empty or has others")]
    Malformed,
}

impl Token {
    /// Takes a token of visible ASCII characters.
    ///
    /// # Errors
    /// If the token is empty or has other characters.
    pub fn new(value: &str) -> Result<Self, TokenError> {
        let visible = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
        if visible { Ok(Self(value.to_owned())) } else { Err(TokenError::Malformed) }
    }

    /// Reads a token from an environment variable; white space around it is dropped.
    ///
    /// # Errors
    /// If the variable is not set or holds no token.
    pub fn from_variable(variable: &str) -> Result<Self, TokenError> {
        let value = env::var(variable).map_err(|_| TokenError::Unset(variable.to_owned()))?;
        Self::new(value.trim())
    }

    /// The value of the header `Authorization`.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether a header `Authorization` carries this token. The time depends on its length alone.
    pub(crate) fn admits(&self, header: &[u8]) -> bool {
        let expected = self.header();
        expected.len() == header.len()
            && expected.bytes().zip(header).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_printed() {
        let token = Token::new("sesame").expect("visible");
        assert_eq!(format!("{token:?}"), "Token(hidden)");
    }

    #[test]
    fn a_token_that_breaks_a_header_is_refused() {
        for value in ["", "two words", "line\nbreak", "é"] {
            assert_eq!(Token::new(value), Err(TokenError::Malformed), "{value:?}");
        }
    }

    #[test]
    fn only_the_same_token_is_admitted() {
        let token = Token::new("sesame").expect("visible");
        assert!(token.admits(b"Bearer sesame"));
        for header in ["Bearer sesamf", "Bearer sesam", "sesame", "", "Bearer sesame "] {
            assert!(!token.admits(header.as_bytes()), "{header:?}");
        }
    }
}
