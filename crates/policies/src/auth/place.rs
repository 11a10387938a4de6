//! Where a request may have a credential. Whether it is good is for others to say.
//!
//! A credential in the query is looked for only where the configuration says so: it stands in
//! histories, bookmarks and other people's logs.

use std::fmt;
use std::str::FromStr;

use portcullis_core::auth::Presented;
use portcullis_core::decode::Fault;
use portcullis_core::head::is_token;
use portcullis_core::known::is_alias;
use portcullis_core::{Known, RequestHead, Span, query};

use super::{after_scheme, cookies};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// `Authorization` under a scheme.
    Authorization(Box<str>),
    Header(Box<str>),
    Cookie(Box<str>),
    Query(Box<str>),
}

/// All the places of one kind of credential.
#[derive(Debug)]
pub(super) struct Places {
    list: Vec<Place>,
    parameters: Vec<Box<str>>,
}

fn authorizations(request: &RequestHead, scheme: &str) -> impl Iterator<Item = Span> {
    let fields = request.fields.live().filter(|field| field.known == Known::Authorization);
    fields.filter_map(move |field| {
        let at = after_scheme(field.value.of(request.fields.bytes()), scheme)?;
        let start = field.value.start as usize;
        Some(Span::new(start + at.start, start + at.end))
    })
}

impl Place {
    fn find(&self, request: &RequestHead, mut each: impl FnMut(Span)) {
        let bytes = request.fields.bytes();
        match self {
            Self::Authorization(scheme) => authorizations(request, scheme).for_each(each),
            Self::Header(name) => {
                let named =
                    |name: &[u8], wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
                let fields = request.fields.live();
                fields
                    .filter(|field| named(field.name.of(bytes), name))
                    .for_each(|f| each(f.value));
            }
            Self::Cookie(name) => cookies::named(request, name.as_bytes()).for_each(each),
            Self::Query(name) => query::values(request, name).for_each(each),
        }
    }

    fn conceal(&self, request: &mut RequestHead) {
        match self {
            Self::Authorization(scheme) => request.fields.remove_if(|known, _, value| {
                known == Known::Authorization && after_scheme(value, scheme).is_some()
            }),
            Self::Header(name) => {
                request.fields.remove_if(|_, found, _| is_alias(found, name.as_bytes()));
            }
            Self::Cookie(name) => cookies::remove(request, |found| found == name.as_bytes()),
            Self::Query(name) => query::remove(request, &[name]),
        }
    }
}

impl Places {
    pub(super) fn new(list: Vec<Place>) -> Self {
        let parameters = list.iter().filter_map(|place| match place {
            Place::Query(name) => Some(name.clone()),
            _ => None,
        });
        Self { parameters: parameters.collect(), list }
    }

    /// [`Presented::Nothing`], [`Presented::Mine`] or [`Presented::Several`].
    pub(super) fn look(&self, request: &RequestHead) -> Presented {
        // By far the most usual, so it has a way of its own.
        if let [Place::Authorization(scheme)] = &*self.list {
            let mut found = authorizations(request, scheme);
            return match (found.next(), found.next()) {
                (None, _) => Presented::Nothing,
                (Some(span), None) => Presented::Mine(span),
                (Some(_), Some(_)) => Presented::Several,
            };
        }
        let mut presented = Presented::Nothing;
        for place in &self.list {
            place.find(request, |span| {
                presented = match presented {
                    Presented::Nothing => Presented::Mine(span),
                    _ => Presented::Several,
                };
            });
        }
        presented
    }

    /// [`Self::look`] for [`portcullis_core::auth::Authenticator::presented`]: who asks that has
    /// seen to it that there is no second `Authorization`, so the first is all that counts.
    pub(super) fn glance(&self, request: &RequestHead) -> Presented {
        match &*self.list {
            [Place::Authorization(scheme)] => {
                let first = authorizations(request, scheme).next();
                first.map_or(Presented::Nothing, Presented::Mine)
            }
            _ => self.look(request),
        }
    }

    /// Whether a browser sent this by itself, for whoever's page it was.
    pub(super) fn in_cookie(&self, span: Span, request: &RequestHead) -> bool {
        self.list.iter().any(|place| match place {
            Place::Cookie(name) => cookies::named(request, name.as_bytes()).any(|at| at == span),
            _ => false,
        })
    }

    pub(super) fn conceal(&self, request: &mut RequestHead) {
        self.list.iter().for_each(|place| place.conceal(request));
    }

    /// For [`portcullis_core::auth::Authenticator::secret_parameters`].
    pub(super) fn parameters(&self) -> &[Box<str>] {
        &self.parameters
    }
}

/// A place as it is written: `header:NAME`, `cookie:NAME` or `query:NAME`.
impl FromStr for Place {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault = |message: String| Fault::new(0..text.len(), message);
        let place = match text.split_once(':') {
            Some(("header", name)) => Self::Header(name.into()),
            Some(("cookie", name)) => Self::Cookie(name.into()),
            Some(("query", name)) => Self::Query(name.into()),
            _ => {
                let forms = "`header:NAME`, `cookie:NAME` or `query:NAME`";
                return Err(fault(format!("`{text}` is not {forms}")));
            }
        };
        match &place {
            Self::Header(name) | Self::Cookie(name) if !is_token(name.as_bytes()) => {
                Err(fault(format!("`{name}` is not a name")))
            }
            Self::Header(name) if Known::of(name.as_bytes()) != Known::Other => {
                Err(fault(format!("the field `{name}` has a meaning of its own")))
            }
            Self::Query(name) if name.is_empty() => Err(fault("a parameter has a name".to_owned())),
            _ => Ok(place),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization(scheme) => write!(f, "scheme:{scheme}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let written = ["header:x-token", "cookie:session", "query:access_token"];
        let mut list: Vec<Place> = written.iter().map(|text| text.parse().unwrap()).collect();
        list.push(Place::Authorization("Bearer".into()));
        Places::new(list)
    }

    fn request(fields: &[(&str, &str)], query: Option<&str>) -> RequestHead {
        let mut request = RequestHead::default();
        for (name, value) in fields {
            request.fields.append(name.as_bytes(), value.as_bytes());
        }
        request.set_query(query.map(str::as_bytes));
        request
    }

    /// What was found, and what is left when it is concealed.
    fn check(fields: &[(&str, &str)], query: Option<&str>, expected: &str) {
        let mut request = request(fields, query);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = match places().look(&request) {
            Presented::Mine(span) => text(span.of(request.fields.bytes())),
            other => format!("{other:?}"),
        };
        places().conceal(&mut request);
        let left =
            request.fields.iter().map(|(name, value)| format!(" {}={}", text(name), text(value)));
        let left: String = left.collect();
        let query = request.query().map(|query| format!(" ?{}", text(query))).unwrap_or_default();
        assert_eq!(format!("{found};{left}{query}"), expected, "{fields:?} {query:?}");
    }

    #[test]
    fn a_credential_is_found_in_one_place_and_taken_out() {
        check(&[], Some("a=1"), "Nothing; ?a=1");
        check(&[("authorization", "bearer t")], None, "t;");
        check(&[("authorization", "Basic t")], None, "Nothing; authorization=Basic t");
        check(&[("X-Token", "t"), ("a", "1")], None, "t; a=1");
        check(&[("cookie", "a=1; session=t; b=2")], None, "t; cookie=a=1; b=2");
        check(&[("cookie", "session=t")], Some("x&access_token=u"), "Several; ?x");
        check(&[("authorization", "Bearer t")], Some("access%5Ftoken=u"), "Several;");
        check(&[("cookie", "session=t"), ("cookie", "session=u")], None, "Several;");
        check(&[], Some("access_token=t&access_token=u&v"), "Several; ?v");
        check(&[], Some("v=w&access_token=t"), "t; ?v=w");
    }

    #[test]
    fn places_that_are_none() {
        for text in ["", "header:", "header:a b", "header:cookie", "cookie:a=b", "query:", "body:a"]
        {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
