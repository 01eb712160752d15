//! When a reply may be kept: the rules of the near cache for one key, and nothing else. No I/O, no clock, no locks.
//!
//! A fill takes a [`Lease`] before its read is sent. Whatever could make the reply old voids the lease: an invalidation
//! that came meanwhile, a write of ours that was sent or acknowledged meanwhile, the loss of the connection, or a change of
//! everything (`FLUSHALL`, a new connection). Only a lease that still stands lets the reply be kept, and what voids leases
//! drops what is kept too. The tests below try every interleaving of these events against a Redis of a few lines.

/// What is known of one key while something of it is kept or under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct KeyState {
    generation: u32,
    /// Leases that are out: the state must not be forgotten before they are back.
    leases: u32,
    /// Writes of ours that are sent and not acknowledged.
    writes: u32,
}

/// The right to keep a reply, if nothing happens until it is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct Lease {
    generation: u32,
    epoch: u64,
}

impl Lease {
    /// The epoch that it was taken in.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl KeyState {
    /// A lease for a read that is about to be sent; none while a write of ours is under way.
    pub fn lease(&mut self, epoch: u64) -> Option<Lease> {
        if self.writes > 0 {
            return None;
        }
        self.leases += 1;
        Some(Lease { generation: self.generation, epoch })
    }

    /// Gives a lease back with the reply; says whether the reply may be kept.
    pub fn redeem(&mut self, lease: &Lease, epoch: u64) -> bool {
        self.leases -= 1;
        lease.epoch == epoch && lease.generation == self.generation && self.writes == 0
    }

    /// The key has changed: what is kept of it must go.
    pub fn invalidate(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// A write of ours is about to be sent: what is kept must go.
    pub fn begin_write(&mut self) {
        self.writes += 1;
        self.invalidate();
    }

    /// A write of ours was acknowledged, or its outcome will never be known: what is kept must go.
    pub fn end_write(&mut self) {
        self.writes -= 1;
        self.invalidate();
    }

    /// Whether a write of ours is under way.
    pub fn is_written(&self) -> bool {
        self.writes > 0
    }

    /// Whether nothing would be lost by forgetting the state.
    pub fn is_idle(&self) -> bool {
        self.leases == 0 && self.writes == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;

    #[derive(Clone, PartialEq, Eq, Hash)]
    enum Up {
        Read(Option<Lease>),
        Write,
    }

    #[derive(Clone, PartialEq, Eq, Hash)]
    enum Down {
        Value(u8, Option<Lease>),
        Acknowledged(u8),
        Push,
    }

    /// One key: a Redis that tracks our connection, the two directions of the connection, and our side.
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct World {
        // Upstream. A value is the number of writes before it.
        value: u8,
        tracked: bool,
        up: VecDeque<Up>,
        down: VecDeque<Down>,
        // The bytes of a lost connection that upstream may still run.
        stray_writes: u8,
        // Ours.
        state: KeyState,
        epoch: u64,
        kept: Option<(u8, u64)>,
        // What was promised.
        acknowledged: u8,
        seen: u8,
        // What may still happen.
        reads: u8,
        writes: u8,
        foreign: u8,
        losses: u8,
    }

    impl World {
        fn new() -> Self {
            Self {
                value: 0,
                tracked: false,
                up: VecDeque::new(),
                down: VecDeque::new(),
                stray_writes: 0,
                state: KeyState::default(),
                epoch: 0,
                kept: None,
                acknowledged: 0,
                seen: 0,
                reads: 3,
                writes: 2,
                foreign: 2,
                losses: 1,
            }
        }

        /// What a client of ours would get without a trip, checked against the promises.
        fn hit(&self) -> Option<u8> {
            let (value, epoch) = self.kept?;
            let serves = epoch == self.epoch && !self.state.is_written();
            if serves {
                assert!(value >= self.acknowledged, "a write was acknowledged and an older value is kept");
                assert!(value >= self.seen, "the key went back to an older value");
            }
            serves.then_some(value)
        }

        fn change(&mut self) {
            self.value += 1;
            if std::mem::take(&mut self.tracked) {
                self.down.push_back(Down::Push);
            }
        }

        fn invalidate(&mut self) {
            self.state.invalidate();
            self.kept = None;
        }

        /// The worlds that may follow.
        fn next(&self) -> Vec<Self> {
            let mut worlds = Vec::new();
            let mut when = |happens: bool, event: &dyn Fn(&mut Self)| {
                if happens {
                    let mut world = self.clone();
                    event(&mut world);
                    worlds.push(world);
                }
            };
            when(self.reads > 0 && self.hit().is_none(), &|world| {
                world.reads -= 1;
                let lease = world.state.lease(world.epoch);
                world.up.push_back(Up::Read(lease));
            });
            when(self.hit().is_some(), &|world| world.seen = world.hit().unwrap());
            when(self.writes > 0, &|world| {
                world.writes -= 1;
                world.state.begin_write();
                world.kept = None;
                world.up.push_back(Up::Write);
            });
            when(self.foreign > 0, &|world| {
                world.foreign -= 1;
                world.change();
            });
            when(self.stray_writes > 0, &|world| {
                world.stray_writes -= 1;
                world.change();
            });
            when(!self.up.is_empty(), &|world| match world.up.pop_front().unwrap() {
                Up::Read(lease) => {
                    world.tracked = true;
                    world.down.push_back(Down::Value(world.value, lease));
                }
                Up::Write => {
                    // Redis pushes to the writer itself too, behind the reply.
                    world.value += 1;
                    world.down.push_back(Down::Acknowledged(world.value));
                    if std::mem::take(&mut world.tracked) {
                        world.down.push_back(Down::Push);
                    }
                }
            });
            when(!self.down.is_empty(), &|world| match world.down.pop_front().unwrap() {
                Down::Push => world.invalidate(),
                Down::Acknowledged(value) => {
                    world.state.end_write();
                    world.kept = None;
                    world.acknowledged = world.acknowledged.max(value);
                }
                Down::Value(value, lease) => {
                    if lease.is_some_and(|lease| world.state.redeem(&lease, world.epoch)) {
                        world.kept = Some((value, world.epoch));
                    }
                    assert!(value >= world.seen, "replies went backwards");
                    world.seen = value;
                }
            });
            when(self.losses > 0, &|world| {
                world.losses -= 1;
                world.epoch += 1;
                let unread = std::mem::take(&mut world.up).into_iter();
                for request in unread {
                    match request {
                        Up::Read(Some(lease)) => assert!(!world.state.redeem(&lease, world.epoch)),
                        Up::Read(None) => {}
                        Up::Write => {
                            world.state.end_write();
                            world.kept = None;
                            world.stray_writes += 1;
                        }
                    }
                }
                for reply in std::mem::take(&mut world.down) {
                    match reply {
                        Down::Push | Down::Value(_, None) => {}
                        Down::Value(_, Some(lease)) => {
                            assert!(!world.state.redeem(&lease, world.epoch));
                        }
                        Down::Acknowledged(_) => {
                            world.state.end_write();
                            world.kept = None;
                        }
                    }
                }
                world.tracked = false;
            });
            worlds
        }
    }

    #[test]
    fn no_interleaving_keeps_an_old_value() {
        let (mut seen, mut open) = (HashSet::new(), vec![World::new()]);
        let mut fills = 0;
        while let Some(world) = open.pop() {
            if !seen.insert(world.clone()) {
                continue;
            }
            let hit = world.hit();
            if world.up.is_empty() && world.down.is_empty() && hit.is_some() {
                assert_eq!(hit, Some(world.value), "all is quiet, and an old value is kept");
                fills += 1;
            }
            open.extend(world.next());
        }
        // The search is of use only if it goes far, and if values are kept at all.
        assert!(seen.len() > 10_000 && fills > 100, "{} worlds, {fills} fills", seen.len());
    }

    #[test]
    fn each_event_voids_a_lease() {
        type Event = (&'static str, fn(&mut KeyState));
        let events: [Event; 3] = [
            ("invalidation", KeyState::invalidate),
            ("write sent", KeyState::begin_write),
            ("write sent and acknowledged", |state| {
                state.begin_write();
                state.end_write();
            }),
        ];
        for (name, event) in events {
            let mut state = KeyState::default();
            let lease = state.lease(7).unwrap();
            event(&mut state);
            assert!(!state.redeem(&lease, 7), "{name}");
        }
        let mut state = KeyState::default();
        let (first, second) = (state.lease(7).unwrap(), state.lease(7).unwrap());
        assert!(state.redeem(&first, 7) && !state.redeem(&second, 8) && state.is_idle());
        state.begin_write();
        assert!(state.lease(7).is_none() && state.is_written() && !state.is_idle());
    }
}
