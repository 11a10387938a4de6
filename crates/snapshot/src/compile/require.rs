//! From what is written under `require` to the rules of a route.

use http::Method;
use portcullis_config::{
    CertificateRule, Group, OneOrMany, Requirement, Route as Written, Settings, Tenant,
};
use portcullis_core::certificate::CertificateName;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;

use super::Compiler;
use crate::require::{ClaimRule, Condition, Layer, Require, RoleRule, Rule, TimeRule};
use crate::router::{PathPattern, Segment};

type Read = fn(&str) -> Result<CertificateName, &'static str>;
type Names = Option<OneOrMany<Spanned<String>>>;

/// Where a rule stands: its path in the configuration and the route that it is compiled for.
#[derive(Clone, Copy)]
struct Site<'a> {
    at: &'a str,
    route: &'a Written,
}

impl<'a> Compiler<'a, '_> {
    /// What the route requires with what it inherits; `None` if that is nothing.
    pub(super) fn require(
        &mut self,
        route: &'a Written,
        group: Option<&'a Group>,
    ) -> Option<Require> {
        let layers: [(&str, Option<&Settings>); 3] = [
            ("defaults", Some(&self.config.defaults.settings)),
            group.map_or(("", None), |group| (&group.resource, Some(&group.layer.settings))),
            (&route.resource, Some(&route.layer.settings)),
        ];
        let mut compiled = Vec::new();
        for (resource, settings) in layers {
            let Some(written) = settings.and_then(|settings| settings.require.as_ref()) else {
                continue;
            };
            let at = format!("{resource}.require");
            let mut rules = Vec::new();
            for (index, rule) in written.iter().enumerate() {
                let at = if written.len() > 1 { format!("{at}[{index}]") } else { at.clone() };
                rules.push(self.rule(rule, Site { at: &at, route }));
            }
            compiled.push(Layer { at, rules });
        }
        (!compiled.is_empty()).then_some(Require { layers: compiled })
    }

    fn rule(&mut self, written: &Spanned<Requirement>, site: Site<'_>) -> Rule {
        let Requirement { methods, scopes, roles, claims, tenant, certificate, time, when } =
            &written.value;
        let mut conditions = Vec::new();
        if let Some(roles) = roles.clone() {
            let (any, all, claim) = (roles.any, roles.all, roles.claim);
            conditions.push(Condition::Roles(RoleRule { any, all, claim }));
        }
        for (name, test) in claims.iter() {
            let (equals, all, any) = (test.equals.clone(), test.all.clone(), test.any.clone());
            let name = name.name.clone();
            conditions.push(Condition::Claim(ClaimRule { name, equals, all, any }));
        }
        conditions.extend(tenant.as_ref().and_then(|tenant| self.tenant(tenant, site)));
        if let Some(certificate) = certificate {
            self.certificate(certificate, site, &mut conditions);
        }
        conditions.extend(time.as_ref().map(|time| Condition::Times(TimeRule::from(&time.value))));
        conditions.extend(when.as_ref().and_then(|when| self.when(when, site)));
        Rule {
            at: site.at.to_owned(),
            methods: self.methods(methods.as_ref(), site),
            scopes: self.scopes(scopes.as_deref().unwrap_or_default(), site),
            conditions,
        }
    }

    fn methods(
        &mut self,
        written: Option<&OneOrMany<Spanned<portcullis_config::Method>>>,
        site: Site<'_>,
    ) -> Vec<Method> {
        let mut methods = Vec::new();
        let has_get = written.is_some_and(|all| all.iter().any(|method| method.0 == "GET"));
        for method in written.into_iter().flat_map(|all| all.iter()) {
            if method.0 == "HEAD" && !has_get {
                let message = "a rule for HEAD is one for GET";
                let resource = format!("{}.methods", site.at);
                let finding = Finding::error("head-alone", method.span, resource, message);
                self.push(finding.help("HEAD goes where GET goes: write GET"));
            }
            methods.extend(Method::from_bytes(method.0.as_bytes()).ok());
        }
        methods
    }

    /// Scopes stand in a field of the answer, so they are of RFC 6749's letters (§3.3).
    fn scopes(&mut self, written: &[Spanned<String>], site: Site<'_>) -> Vec<String> {
        for scope in written {
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
            if scope.is_empty() || !scope.bytes().all(plain) {
                let message = format!("`{}` is not a scope", scope.value);
                let resource = format!("{}.scopes", site.at);
                let finding = Finding::error("invalid-value", scope.span, resource, message);
                self.push(finding.help("a scope has no spaces, quotes or backslashes"));
            }
        }
        written.iter().map(|scope| scope.value.clone()).collect()
    }

    fn tenant(&mut self, written: &Spanned<Tenant>, site: Site<'_>) -> Option<Condition> {
        let param = match &written.value {
            Tenant::Named(names) => return Some(Condition::Tenant(names.clone())),
            Tenant::Param(param) => param,
        };
        let mut paths = site.route.matches.iter().flat_map(|one| &one.paths);
        let without = paths.find(|text| {
            let parsed = PathPattern::parse(&text.text().value).ok();
            let wanted = Segment::Capture(param.value.clone());
            !matches!(
                parsed,
                Some(PathPattern::Template(segments) | PathPattern::Prefix(segments))
                    if segments.contains(&wanted)
            )
        });
        let Some(without) = without else {
            return Some(Condition::TenantOfPath(param.value.as_str().into()));
        };
        let path = without.text();
        let message = format!("the path `{}` has no `{{{}}}`", path.value, param.value);
        let resource = format!("{}.tenant.param", site.at);
        let finding = Finding::error("unknown-name", param.span, resource, message)
            .related(path.span, format!("a path of `{}`", site.route.name))
            .help("every path of the route has to capture the segment that names the tenant");
        self.push(finding);
        None
    }

    fn certificate(
        &mut self,
        written: &Spanned<CertificateRule>,
        site: Site<'_>,
        conditions: &mut Vec<Condition>,
    ) {
        let CertificateRule { dns, uri, spiffe, subject, sha256 } = &written.value;
        let whole: Read = |text| Ok(CertificateName::Subject(text.to_owned()));
        let parts: [(&str, &Names, Read); 5] = [
            ("dns", dns, CertificateName::dns),
            ("uri", uri, CertificateName::uri),
            ("spiffe", spiffe, CertificateName::spiffe),
            ("subject", subject, whole),
            ("sha256", sha256, CertificateName::sha256),
        ];
        for (key, names, read) in parts {
            let Some(names) = names else { continue };
            let mut compiled = Vec::new();
            for name in names.iter() {
                match read(name) {
                    Ok(name) => compiled.push(name),
                    Err(help) => {
                        let message = format!("`{}` does not say which certificates", name.value);
                        let resource = format!("{}.certificate.{key}", site.at);
                        let finding = Finding::error("invalid-value", name.span, resource, message);
                        self.push(finding.help(help));
                    }
                }
            }
            let said: Vec<&str> = names.iter().map(|name| name.value.as_str()).collect();
            conditions
                .push(Condition::Certificate(compiled, format!("{key} {}", said.join(" or "))));
        }
    }

    #[cfg(feature = "cel")]
    fn when(&mut self, written: &Spanned<String>, site: Site<'_>) -> Option<Condition> {
        match crate::require::Expression::compile(&written.value) {
            Ok(expression) => Some(Condition::When(Box::new(expression))),
            Err(fault) => {
                let span = written.span.within(&written.value, &fault.at);
                let resource = format!("{}.when", site.at);
                let message = format!("the expression does not hold together: {}", fault.message);
                self.push(Finding::error("invalid-expression", span, resource, message));
                None
            }
        }
    }

    #[cfg(not(feature = "cel"))]
    fn when(&mut self, written: &Spanned<String>, site: Site<'_>) -> Option<Condition> {
        let message = "this build of the gateway has no expressions";
        let resource = format!("{}.when", site.at);
        let finding = Finding::error("not-built-in", written.span, resource, message);
        self.push(finding.help("use one that was built with the feature `cel`"));
        None
    }
}
