//! The bearer tokens of the admin API: the text of `admin.token_file`.

use super::compile::name_problem;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

/// Bytes of the file.
pub const MAX_FILE_BYTES: usize = 64 * 1024;
/// Tokens of the file.
const MAX_TOKENS: usize = 100;
/// Characters of a token: what can be guessed is none, and a `Authorization` field must hold it.
const MIN_TOKEN: usize = 16;
const MAX_TOKEN: usize = 1024;
/// What a token without a name is called.
const NAMELESS: &str = "token";

/// Tokens by name, none twice. What they are is not kept, only what they are known by.
pub struct Tokens(Vec<Token>);

struct Token {
    name: Box<str>,
    sha256: [u8; 32],
}

impl Tokens {
    /// One token a line, alone or as `name: token`. Blanks around it, empty lines and those that begin with `#` do not
    /// count.
    ///
    /// # Errors
    /// What is wrong, with the line. The text is never repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<Token> = Vec::new();
        let lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let token = Token::parse(line).map_err(|problem| format!("line {number}: {problem}"))?;
            if tokens.iter().any(|other| other.name == token.name) {
                return Err(format!(
                    "line {number}: a second token is called `{}`; write `name: token`",
                    token.name
                ));
            }
            if tokens.len() == MAX_TOKENS {
                return Err(format!("line {number}: more than {MAX_TOKENS} tokens"));
            }
            tokens.push(token);
        }
        if tokens.is_empty() {
            return Err("there is no token in it".to_owned());
        }
        Ok(Self(tokens))
    }

    /// The name of the token `presented`. How long it takes says nothing of the tokens but how many there are.
    pub fn name_of(&self, presented: &[u8]) -> Option<&str> {
        let sha256 = sha256(presented);
        self.0.iter().fold(None, |found, token| {
            let same: bool = token.sha256.ct_eq(&sha256).into();
            if same { Some(&*token.name) } else { found }
        })
    }
}

impl Token {
    fn parse(line: &str) -> Result<Self, String> {
        let (name, token) = match line.split_once(':') {
            Some((name, token)) => (name.trim_end(), token.trim_start()),
            None => (NAMELESS, line),
        };
        if let Some(problem) = name_problem(name) {
            return Err(format!("the name of the token is no name: {problem}"));
        }
        // RFC 6750 section 2.1.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !token.bytes().all(allowed) {
            return Err("a token consists of letters, digits and `-._~+/=`".to_owned());
        }
        if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) {
            return Err(format!(
                "a token has {MIN_TOKEN} to {MAX_TOKEN} characters, this one has {}; `openssl rand -hex 32` makes one",
                token.len()
            ));
        }
        Ok(Self {
            name: name.into(),
            sha256: sha256(token.as_bytes()),
        })
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = "0123456789abcdef";
    const OTHER: &str = "ci/Deploy-Token_1.2~3+4=";

    fn problem(text: &str) -> String {
        Tokens::parse(text).err().unwrap()
    }

    #[test]
    fn a_file_has_one_token_or_several_with_names() {
        let one = Tokens::parse(&format!("  {ONE}\n")).unwrap();
        assert_eq!(one.name_of(ONE.as_bytes()), Some("token"));
        let text = format!("# of the team\n\nada: {ONE}\r\n ci :{OTHER}");
        let several = Tokens::parse(&text).unwrap();
        assert_eq!(several.name_of(ONE.as_bytes()), Some("ada"));
        assert_eq!(several.name_of(OTHER.as_bytes()), Some("ci"));
        for wrong in ["", "ada", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF"] {
            assert_eq!(several.name_of(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_token() {
        for (text, words) in [
            (String::new(), "no token"),
            ("# only this\n\n".to_owned(), "no token"),
            ("secret".to_owned(), "16 to 1024 characters, this one has 6"),
            (format!("\na: {}", "x".repeat(1025)), "line 2: a token has 16"),
            (format!("{ONE}\n{ONE}x"), "line 2: a second token is called `token`"),
            (format!("a: {ONE}\na: {OTHER}"), "line 2: a second token is called `a`"),
            (format!("a b: {ONE}"), "no name"),
            (format!(": {ONE}"), "no name: it is empty"),
            (format!("a: {ONE} {ONE}"), "letters, digits"),
            ("päßwörter-sind-schön".to_owned(), "letters, digits"),
            (
                (0..101).map(|n| format!("n{n}: {ONE}\n")).collect::<String>(),
                "line 101: more than 100",
            ),
        ] {
            let problem = problem(&text);
            assert!(problem.contains(words), "{problem}");
            assert!(!problem.contains(ONE) && !problem.contains("secret"), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_only_its_own_tokens_are_found(text in "[a-z: \n=#]{0,200}", guess in "[a-z=]{0,40}") {
            if let Ok(tokens) = Tokens::parse(&text) {
                let there = text.lines().any(|line| line.rsplit(':').next().unwrap().trim() == guess);
                prop_assert!(tokens.name_of(guess.as_bytes()).is_none() || there);
            }
        }
    }
}
