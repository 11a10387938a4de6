//! Some of a balancer's members as a balancer of their own, which outside has the numbers of the
//! whole. Who is in a part is decided when it is made, not with each choice.

use crate::balancer::{Ask, Balancer, EndpointIndex, Member, Settings};
use crate::listed::Listed;
use crate::tried::Tried;

#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) balancer: Balancer,
    /// Which members of the whole these are, in ascending order.
    members: Box<[u16]>,
}

impl Part {
    /// Those that are listed so.
    pub(crate) fn new(
        settings: Settings,
        members: &[Member],
        listed: &[Listed],
        inside: impl Fn(&Listed) -> bool,
    ) -> Option<Self> {
        let all = (0_u16..).zip(listed).filter(|(_, one)| inside(one));
        let (numbers, listed): (Vec<u16>, Vec<Listed>) =
            all.map(|(number, one)| (number, one.clone())).unzip();
        let members = numbers.iter().map(|number| members[usize::from(*number)].clone()).collect();
        let balancer = Balancer::placed(settings, members, &listed).ok()?;
        Some(Self { balancer, members: numbers.into() })
    }

    pub(crate) fn pick(&self, ask: Ask, tried: &Tried) -> Option<EndpointIndex> {
        let mut own = Tried::NONE;
        for index in tried.iter().filter_map(|index| self.inner(index)) {
            if !own.insert(index) {
                return None;
            }
        }
        // Who has been sent to another part comes back with its number.
        let home = ask.home.and_then(|home| self.inner(home));
        self.balancer.pick(Ask { home, ..ask }, &own).map(|index| self.outer(index))
    }

    pub(crate) fn outer(&self, index: EndpointIndex) -> EndpointIndex {
        EndpointIndex(self.members[index.get()])
    }

    pub(crate) fn inner(&self, index: EndpointIndex) -> Option<EndpointIndex> {
        self.members.binary_search(&index.0).ok().map(|at| EndpointIndex(at as u16))
    }
}
