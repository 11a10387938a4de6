//! The gateway's own zone, and the backends that prefer it.

use portcullis_config::{Backend as Written, GatewayZone, Named, ZONE_BYTES_MAX};
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_upstream::zone::Terms;

use super::Compiler;

impl Compiler<'_, '_> {
    /// `None` where nobody said, and after an error.
    pub(super) fn own_zone(&mut self) -> Option<Box<str>> {
        let config = self.config;
        let Spanned { value, span } = config.process.gateway.zone.as_ref()?;
        let reference = match value {
            GatewayZone::Name(name) => return Some(name.as_str().into()),
            GatewayZone::At(reference) => Spanned::new(reference.clone(), *span),
        };
        let read = self.read("gateway.zone", &reference)?;
        let text = std::str::from_utf8(&read).map(str::trim).unwrap_or_default();
        if text.is_empty() || text.len() > ZONE_BYTES_MAX {
            let message = format!("`{}` is not the name of a zone", reference.value);
            let finding = Finding::error("zone", *span, "gateway.zone", message);
            self.push(finding.help("one has 1 to 64 bytes"));
            return None;
        }
        Some(text.into())
    }

    /// What a backend makes of the own zone; `None` where it makes nothing of it.
    pub(super) fn zone_terms(
        &mut self,
        resource: &str,
        named: &Named<Written>,
        own: Option<&str>,
    ) -> Option<Terms> {
        let prefers = named.value.prefer_zone.value.0?;
        let Some(own) = own else {
            // Where it cannot be read, that has been said.
            if self.config.process.gateway.zone.is_none() {
                let why = "nothing says which zone this gateway is in";
                let help = "say `gateway: { zone: NAME }`, or `env:NAME` to take it from there";
                self.prefers_in_vain(resource, named, why, help);
            }
            return None;
        };
        self.check_places(resource, named, own);
        let load = self.config.process.gateway.load;
        Some(Terms { own: own.into(), load, load_max: prefers.load_max })
    }

    fn check_places(&mut self, resource: &str, named: &Named<Written>, own: &str) {
        let Written { endpoints, discover, .. } = &named.value;
        if discover.as_ref().is_some_and(|discover| discover.value.file.is_none()) {
            let why = "what DNS finds is in no zone";
            self.prefers_in_vain(resource, named, why, "a file of endpoints can say zones");
            return;
        }
        let zones = endpoints.iter().map(|one| one.zone.as_deref());
        if discover.is_none() && !zones.clone().any(|zone| zone == Some(own)) {
            let why = format!("none of its endpoints is in the zone `{own}` of this gateway");
            let finding = in_vain(resource, named, &why);
            self.push(finding.suggest(own, zones.flatten()));
        }
    }

    fn prefers_in_vain(&mut self, resource: &str, named: &Named<Written>, why: &str, help: &str) {
        self.push(in_vain(resource, named, why).help(help));
    }
}

fn in_vain(resource: &str, named: &Named<Written>, why: &str) -> Finding {
    let message = format!("`{}` prefers its own zone in vain: {why}", named.name);
    let resource = format!("{resource}.prefer_zone");
    Finding::warning("zone", named.value.prefer_zone.span, resource, message)
}
