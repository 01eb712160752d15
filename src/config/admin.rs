//! `[admin]`: where the admin HTTP server listens, and the token that it wants.

use std::net::{Ipv4Addr, SocketAddr};

/// The admin HTTP server.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens; `None` if it is off.
    pub listen: Option<SocketAddr>,
    /// What requests must bring, except those for health.
    pub token: Option<Secret>,
}

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Whether this is it. Takes as long for a wrong one, whatever is wrong.
    pub fn is(&self, given: &[u8]) -> bool {
        let ours = self.0.as_bytes();
        let differs = ours.iter().zip(given).fold(0, |bits, (ours, theirs)| bits | (ours ^ theirs));
        std::hint::black_box(differs) == 0 && ours.len() == given.len()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: Some((Ipv4Addr::LOCALHOST, 9121).into()), token: None }
    }
}

impl Admin {
    /// Takes an address with a port, or `off`.
    pub(super) fn set_listen(&mut self, text: &str) -> Result<(), String> {
        self.listen = match text {
            "off" => None,
            text => {
                let text = text.replacen("localhost:", "127.0.0.1:", 1);
                Some(text.parse().map_err(|_| "must be an address and a port, as 127.0.0.1:9121, or off")?)
            }
        };
        Ok(())
    }

    /// Takes a token; an empty one is none.
    pub(super) fn set_token(&mut self, text: &str) {
        self.token = (!text.is_empty()).then(|| Secret(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_match_whole_and_are_not_shown() {
        let mut admin = Admin::default();
        admin.set_token("abc");
        let token = admin.token.clone().unwrap();
        assert!(token.is(b"abc"));
        assert!(![&b""[..], b"ab", b"abcd", b"abd"].iter().any(|wrong| token.is(wrong)));
        assert!(!format!("{admin:?}").contains("abc"));
        admin.set_token("");
        assert!(admin.token.is_none());
    }

    #[test]
    fn it_listens_where_it_is_told() {
        let mut admin = Admin::default();
        assert_eq!(admin.listen.unwrap().to_string(), "127.0.0.1:9121");
        admin.set_listen("[::1]:80").unwrap();
        assert_eq!(admin.listen.unwrap().to_string(), "[::1]:80");
        assert!(admin.set_listen("9121").is_err() && admin.set_listen("on").is_err());
        admin.set_listen("off").unwrap();
        assert!(admin.listen.is_none());
    }
}
