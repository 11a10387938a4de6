//! What can be known of an expression without a request: that its variables, fields and functions
//! exist, that the kinds of its operands fit each other, and that it comes to true or false.
//!
//! Claims may be anything, so what comes of them is known to nobody before a request.

use cel::Program;
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use portcullis_core::finding::did_you_mean;

/// Parts of one expression.
const NODES_MAX: usize = 256;

/// A kind of value.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Not known before a request.
    Any,
    Bool,
    Number,
    Text,
    Null,
    List(Box<Self>),
    /// Keys are text.
    Map(Box<Self>),
    /// One of the variables, with the fields that it has.
    Record(&'static str),
}

const RECORDS: [&str; 3] = ["identity", "request", "certificate"];
const VARIABLES: [&str; 5] = ["identity", "request", "params", "certificate", "now"];

/// The fields of a record.
fn fields(record: &str) -> Vec<(&'static str, Kind)> {
    let text = || Kind::Text;
    let texts = || Kind::List(Box::new(Kind::Text));
    match record {
        "identity" => vec![
            ("auth", text()),
            ("client", text()),
            ("tenant", text()),
            ("scopes", texts()),
            ("claims", Kind::Map(Box::new(Kind::Any))),
        ],
        "request" => vec![
            ("method", text()),
            ("host", text()),
            ("path", text()),
            ("query", text()),
            ("client_ip", text()),
            ("headers", Kind::Map(Box::new(Kind::Text))),
        ],
        _ => vec![
            ("subject", text()),
            ("dns", texts()),
            ("uris", texts()),
            ("emails", texts()),
            ("serial", text()),
            ("sha256", text()),
        ],
    }
}

impl Kind {
    fn name(&self) -> String {
        match self {
            Self::Any => "anything".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Null => "null".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
            Self::Record(name) => format!("`{name}` as a whole"),
        }
    }

    /// Whether a value of this kind may be one of the other.
    fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(one), Self::List(other)) | (Self::Map(one), Self::Map(other)) => {
                one.fits(other)
            }
            // Every kind may turn out to be nothing.
            (Self::Null, _) | (_, Self::Null) => true,
            _ => self == other,
        }
    }
}

/// What is wrong, and with which part.
pub(super) struct Wrong {
    pub(super) id: u64,
    pub(super) message: String,
}

/// The variables that the expression uses.
pub(super) fn check(program: &Program) -> Result<Vec<&'static str>, Wrong> {
    let mut check = Check { nodes: 0, scope: Vec::new(), in_loop: false, uses: Vec::new() };
    let root = program.expression();
    match check.kind(root)? {
        Kind::Bool | Kind::Any => Ok(check.uses),
        other => wrong(root, format!("it comes to {}, not to true or false", other.name())),
    }
}

fn wrong<T>(at: &IdedExpr, message: String) -> Result<T, Wrong> {
    Err(Wrong { id: at.id, message })
}

struct Check {
    nodes: usize,
    /// Variables of loops, innermost last.
    scope: Vec<(String, Kind)>,
    in_loop: bool,
    uses: Vec<&'static str>,
}

impl Check {
    fn kind(&mut self, node: &IdedExpr) -> Result<Kind, Wrong> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return wrong(node, format!("an expression has at most {NODES_MAX} parts"));
        }
        match &node.expr {
            Expr::Literal(value) => Ok(match value {
                LiteralValue::Boolean(_) => Kind::Bool,
                LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => {
                    Kind::Number
                }
                LiteralValue::String(_) => Kind::Text,
                LiteralValue::Null => Kind::Null,
                LiteralValue::Bytes(_) => return wrong(node, "there are no bytes here".to_owned()),
            }),
            Expr::Ident(name) => self.variable(node, name),
            Expr::Select(select) => {
                let of = self.kind(&select.operand)?;
                let kind = field(node, of, &select.field)?;
                Ok(if select.test { Kind::Bool } else { kind })
            }
            Expr::List(list) => {
                let mut all: Option<Kind> = None;
                for element in &list.elements {
                    let kind = self.kind(element)?;
                    all = Some(match all {
                        Some(all) if all != kind => Kind::Any,
                        _ => kind,
                    });
                }
                Ok(Kind::List(Box::new(all.unwrap_or(Kind::Any))))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.expect(&entry.key, &Kind::Text)?;
                        self.kind(&entry.value)?;
                    }
                }
                Ok(Kind::Map(Box::new(Kind::Any)))
            }
            Expr::Comprehension(all) => self.comprehension(node, all),
            Expr::Call(call) => {
                let mut of = Vec::new();
                for argument in call.target.iter().map(|target| &**target).chain(&call.args) {
                    of.push((argument, self.kind(argument)?));
                }
                function(node, &call.func_name, &of)
            }
            Expr::Struct(_) | Expr::Unspecified => {
                wrong(node, "there are no types of messages here".to_owned())
            }
        }
    }

    fn expect(&mut self, node: &IdedExpr, kind: &Kind) -> Result<(), Wrong> {
        let found = self.kind(node)?;
        must_be(node, &found, kind)
    }

    fn variable(&mut self, node: &IdedExpr, name: &str) -> Result<Kind, Wrong> {
        if let Some((_, kind)) = self.scope.iter().rev().find(|(own, _)| own == name) {
            return Ok(kind.clone());
        }
        let Some(known) = VARIABLES.into_iter().find(|known| *known == name) else {
            let near = did_you_mean(name, VARIABLES);
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let all = VARIABLES.join("`, `");
            return wrong(node, format!("there is no `{name}`, only `{all}`{hint}"));
        };
        if !self.uses.contains(&known) {
            self.uses.push(known);
        }
        Ok(match known {
            "now" => Kind::Number,
            "params" => Kind::Map(Box::new(Kind::Text)),
            record => Kind::Record(record),
        })
    }

    /// `all`, `exists`, `exists_one`, `filter` and `map`, as they are expanded.
    fn comprehension(&mut self, node: &IdedExpr, loops: &ComprehensionExpr) -> Result<Kind, Wrong> {
        if self.in_loop {
            return wrong(node, "a loop over a list cannot stand in another".to_owned());
        }
        let element = match self.kind(&loops.iter_range)? {
            Kind::List(element) => *element,
            Kind::Map(_) => Kind::Text,
            Kind::Any => Kind::Any,
            other => {
                let message = format!("{} has no elements", other.name());
                return wrong(&loops.iter_range, message);
            }
        };
        let begin = self.kind(&loops.accu_init)?;
        let before = self.scope.len();
        self.in_loop = true;
        self.scope.push((loops.iter_var.clone(), element));
        self.scope.extend(loops.iter_var2.iter().map(|name| (name.clone(), Kind::Any)));
        self.scope.push((loops.accu_var.clone(), begin.clone()));
        let step = self.kind(&loops.loop_cond).and_then(|_| self.kind(&loops.loop_step));
        self.in_loop = false;
        step?;
        let result = self.kind(&loops.result)?;
        self.scope.truncate(before);
        Ok(result)
    }
}

fn must_be(node: &IdedExpr, found: &Kind, kind: &Kind) -> Result<(), Wrong> {
    match found.fits(kind) && *found != Kind::Null {
        true => Ok(()),
        false => wrong(node, format!("this is {}, not {}", found.name(), kind.name())),
    }
}

fn field(node: &IdedExpr, of: Kind, name: &str) -> Result<Kind, Wrong> {
    match of {
        Kind::Any => Ok(Kind::Any),
        Kind::Map(values) => Ok(*values),
        Kind::Record(record) => {
            let fields = fields(record);
            if let Some((_, kind)) = fields.iter().find(|(known, _)| *known == name) {
                return Ok(kind.clone());
            }
            let known: Vec<&str> = fields.iter().map(|(known, _)| *known).collect();
            let near = did_you_mean(name, known.iter().copied());
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let known = known.join("`, `");
            wrong(node, format!("`{record}` has no `{name}`, only `{known}`{hint}"))
        }
        other => wrong(node, format!("{} has no `{name}`", other.name())),
    }
}

type Arguments<'a> = [(&'a IdedExpr, Kind)];

/// What a function or an operator comes to.
fn function(node: &IdedExpr, name: &str, of: &Arguments<'_>) -> Result<Kind, Wrong> {
    use operators as op;
    let all = |kind: Kind| of.iter().try_for_each(|(node, found)| must_be(node, found, &kind));
    if of.iter().any(|(_, kind)| matches!(kind, Kind::Record(_))) {
        let records = RECORDS.join("`, `");
        return wrong(node, format!("`{records}` are used by their fields"));
    }
    match (name, of) {
        (op::LOGICAL_AND | op::LOGICAL_OR | op::LOGICAL_NOT, _) => {
            all(Kind::Bool).map(|()| Kind::Bool)
        }
        (op::EQUALS | op::NOT_EQUALS, [(_, one), (_, other)]) => match one.fits(other) {
            true => Ok(Kind::Bool),
            false => {
                let (one, other) = (one.name(), other.name());
                wrong(node, format!("{one} is never equal to {other}"))
            }
        },
        (
            op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS,
            [(_, one), (at, other)],
        ) => {
            must_be(at, other, one)?;
            match one {
                Kind::Number | Kind::Text | Kind::Any => Ok(Kind::Bool),
                other => wrong(node, format!("{} has no order", other.name())),
            }
        }
        (op::ADD, [(_, one), (at, other)]) => {
            must_be(at, other, one)?;
            match one {
                Kind::Number | Kind::Text | Kind::List(_) | Kind::Any => Ok(one.clone()),
                other => wrong(node, format!("{} cannot be added to", other.name())),
            }
        }
        (op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO | op::NEGATE, _) => {
            all(Kind::Number).map(|()| Kind::Number)
        }
        (op::CONDITIONAL, [(at, condition), (_, one), (_, other)]) => {
            must_be(at, condition, &Kind::Bool)?;
            Ok(if one == other { one.clone() } else { Kind::Any })
        }
        (op::IN, [(_, element), (at, of)]) => match of {
            Kind::List(elements) if element.fits(elements) => Ok(Kind::Bool),
            Kind::Map(_) if element.fits(&Kind::Text) => Ok(Kind::Bool),
            Kind::Any => Ok(Kind::Bool),
            Kind::List(_) | Kind::Map(_) => {
                wrong(node, format!("{} is never in it", element.name()))
            }
            other => wrong(at, format!("nothing is in {}", other.name())),
        },
        (op::INDEX, [(_, of), (at, index)]) => match of {
            Kind::List(elements) => {
                must_be(at, index, &Kind::Number).map(|()| (**elements).clone())
            }
            Kind::Map(values) => must_be(at, index, &Kind::Text).map(|()| (**values).clone()),
            Kind::Any => Ok(Kind::Any),
            other => wrong(node, format!("{} has no elements", other.name())),
        },
        ("size", [(at, of)]) => match of {
            Kind::Text | Kind::List(_) | Kind::Map(_) | Kind::Any => Ok(Kind::Number),
            other => wrong(at, format!("{} has no size", other.name())),
        },
        ("contains" | "startsWith" | "endsWith", [_, _]) => all(Kind::Text).map(|()| Kind::Bool),
        ("int" | "uint" | "double", [_]) => Ok(Kind::Number),
        ("string", [_]) => Ok(Kind::Text),
        // Of the loops' own making.
        (op::NOT_STRICTLY_FALSE, [_]) => Ok(Kind::Bool),
        _ => {
            let known = ["size", "contains", "startsWith", "endsWith", "int", "double", "string"];
            let loops = ["has", "all", "exists", "exists_one", "filter", "map"];
            let near = did_you_mean(name, known.into_iter().chain(loops));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            wrong(node, format!("there is no such use of `{name}`{hint}"))
        }
    }
}
