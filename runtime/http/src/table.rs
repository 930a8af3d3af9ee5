//! Tables of routes: one row for each operation. Requests find theirs here, and the OpenAPI document is made from the same
//! rows, so that it can say nothing else than what is served.

use http::Method;
use nave_auth::{DpsRights, Rights};

/// The method of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

impl Verb {
    /// The name in an OpenAPI document.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Post => "post",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    fn is(self, method: &Method) -> bool {
        method.as_str().eq_ignore_ascii_case(self.name())
    }
}

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Who has these rights at the hub.
    Hub(Rights),
    /// Who has these rights at the provisioning service.
    Dps(DpsRights),
    /// The device that the path names; it is authenticated where the call is answered.
    Device,
    /// The device that registers, likewise.
    Registration,
    /// Who knows the admin token.
    Admin,
    /// Who knows that or the token for metrics.
    Metrics,
    /// Anybody.
    Anyone,
}

/// A body: its media type, and the name of its schema, if it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content(pub(crate) &'static str, pub(crate) Option<&'static str>);

/// An answer that is no error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer(pub(crate) u16, pub(crate) Option<Content>);

/// 204.
pub(crate) const EMPTY: Answer = Answer(204, None);

/// A body of JSON.
pub(crate) const fn json(schema: &'static str) -> Content {
    Content("application/json", Some(schema))
}

/// 200 with JSON.
pub(crate) const fn ok(schema: &'static str) -> Answer {
    Answer(200, Some(json(schema)))
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<D: 'static> {
    pub(crate) verb: Verb,
    /// Words, and `{names}` of what a client chooses. Words have no case.
    pub(crate) path: &'static str,
    /// What answers it.
    pub(crate) does: D,
    pub(crate) access: Access,
    /// The operation's name in the document.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    /// Names of parameters beside those of the path and the api-version.
    pub(crate) takes: &'static [&'static str],
    pub(crate) body: Option<Content>,
    pub(crate) answers: &'static [Answer],
}

/// An operation without parameters and body.
pub(crate) const fn route<D: Copy>(
    verb: Verb,
    path: &'static str,
    does: D,
    access: Access,
    (id, summary): (&'static str, &'static str),
    answers: &'static [Answer],
) -> Route<D> {
    Route { verb, path, does, access, id, summary, takes: &[], body: None, answers }
}

impl<D> Route<D> {
    fn matches(&self, words: &[&str]) -> bool {
        let mut pieces = self.path.split('/').skip(1);
        let matched = words
            .iter()
            .all(|word| pieces.next().is_some_and(|piece| piece.starts_with('{') || piece.eq_ignore_ascii_case(word)));
        matched && pieces.next().is_none()
    }
}

/// What a table has for a request.
pub(crate) enum Found<'t, D: 'static> {
    /// This operation.
    Operation(&'t Route<D>),
    /// The path, with other methods.
    Path,
    /// Nothing.
    Nothing,
}

/// The first operation for `method` at the path of these words.
pub(crate) fn find<'t, D>(table: &'t [Route<D>], words: &[&str], method: &Method) -> Found<'t, D> {
    let mut found = Found::Nothing;
    for route in table.iter().filter(|route| route.matches(words)) {
        if route.verb.is(method) {
            return Found::Operation(route);
        }
        found = Found::Path;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Route<u8>] = &[
        route(Verb::Get, "/a", 1, Access::Anyone, ("", ""), &[]),
        route(Verb::Post, "/a/query", 2, Access::Anyone, ("", ""), &[]),
        route(Verb::Get, "/a/{id}", 3, Access::Anyone, ("", ""), &[]),
        route(Verb::Get, "/{scope}/b/{id}", 4, Access::Anyone, ("", ""), &[]),
    ];

    fn found(words: &[&str], method: &Method) -> Result<u8, bool> {
        match find(TABLE, words, method) {
            Found::Operation(route) => Ok(route.does),
            Found::Path => Err(true),
            Found::Nothing => Err(false),
        }
    }

    #[test]
    fn the_first_row_of_path_and_method_counts() {
        assert_eq!(found(&["A"], &Method::GET), Ok(1));
        assert_eq!(found(&["a", "query"], &Method::POST), Ok(2));
        assert_eq!(found(&["a", "query"], &Method::GET), Ok(3), "there may be a thing of that name");
        assert_eq!(found(&["a", "query"], &Method::PUT), Err(true));
        assert_eq!(found(&["x", "b", "y"], &Method::GET), Ok(4));
        assert_eq!(found(&[], &Method::GET), Err(false));
        assert_eq!(found(&["a", "b", "c", "d"], &Method::GET), Err(false));
        assert_eq!(found(&["a", ""], &Method::GET), Ok(3));
    }
}
