//! What was handed over and did not come back, by ticket. Pure.

use super::wire::{Ticket, Violation};

/// At most a window of values, each taken out by the ticket that it got and by no other.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    held: Option<T>,
}

impl<T> InFlight<T> {
    pub(super) fn new(window: u32) -> Self {
        let place = |_| Place {
            generation: 0,
            held: None,
        };
        Self {
            places: (0..window).map(place).collect(),
            free: (0..window).rev().collect(),
        }
    }

    /// How many are out.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// How many more there may be.
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// Takes a value in.
    ///
    /// # Panics
    /// Without room.
    pub(super) fn insert(&mut self, held: T) -> Ticket {
        let index = self.free.pop().expect("there is room");
        let place = &mut self.places[index as usize];
        place.held = Some(held);
        Ticket {
            index,
            generation: place.generation,
        }
    }

    /// The value that got this ticket.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Result<T, Violation> {
        let held = self
            .places
            .get_mut(ticket.index as usize)
            .filter(|place| place.generation == ticket.generation)
            .and_then(|place| {
                let held = place.held.take()?;
                place.generation = place.generation.wrapping_add(1);
                Some(held)
            })
            .ok_or(Violation::NotOut(ticket))?;
        self.free.push(ticket.index);
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once() {
        let mut in_flight = InFlight::new(2);
        let (a, b) = (in_flight.insert('a'), in_flight.insert('b'));
        assert_eq!((in_flight.len(), in_flight.room()), (2, 0));
        assert_eq!(in_flight.remove(a), Ok('a'));
        assert_eq!(in_flight.remove(a), Err(Violation::NotOut(a)));
        let c = in_flight.insert('c');
        assert_eq!((c.index, c.generation), (a.index, a.generation + 1));
        assert_eq!(in_flight.remove(a), Err(Violation::NotOut(a)));
        assert_eq!(in_flight.remove(b), Ok('b'));
        assert_eq!(in_flight.remove(c), Ok('c'));
    }

    #[test]
    fn no_word_takes_out_what_it_does_not_name() {
        let mut in_flight = InFlight::new(2);
        let ticket = in_flight.insert('a');
        for word in [1, 2, u64::from(u32::MAX), u64::MAX, 1 << 32] {
            assert!(in_flight.remove(Ticket::decode(word)).is_err());
        }
        assert_eq!(in_flight.remove(ticket), Ok('a'));
    }
}
