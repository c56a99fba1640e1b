//! What keys change.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::dataset::services::Service;

/// By what services are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// The most bytes first.
    #[default]
    Bytes,
    /// The most messages first.
    Messages,
    /// The worst foretold first.
    Factor,
}

impl Order {
    const fn next(self) -> Self {
        match self {
            Self::Bytes => Self::Messages,
            Self::Messages => Self::Factor,
            Self::Factor => Self::Bytes,
        }
    }

    /// What the list is sorted by, in a word.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Messages => "messages",
            Self::Factor => "factor",
        }
    }

    /// Sorts.
    pub(super) fn sort(self, services: &mut [Service]) {
        services.sort_by(|a, b| match self {
            Self::Bytes => b.bytes.cmp(&a.bytes),
            Self::Messages => b.messages.cmp(&a.messages),
            Self::Factor => {
                let factor = |it: &Service| it.told().map_or(0.0, |told| told.median_factor);
                factor(b).total_cmp(&factor(a))
            }
        });
    }
}

/// What is shown of a view, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Index of the link that is shown.
    pub(super) link: usize,
    pub(super) order: Order,
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// Another picture of the same.
    Redraw,
    /// The end.
    Quit,
    /// Nothing.
    Nothing,
}

impl State {
    /// Takes a key; `links` is how many there are to choose from.
    pub(super) fn press(&mut self, key: KeyEvent, links: usize) -> Pressed {
        if key.kind == KeyEventKind::Release {
            return Pressed::Nothing;
        }
        let controlled = key.modifiers.contains(KeyModifiers::CONTROL);
        let links = links.max(1);
        match key.code {
            KeyCode::Char('c') if controlled => return Pressed::Quit,
            KeyCode::Esc | KeyCode::Char('?' | 'h') if self.shows_help => self.shows_help = false,
            KeyCode::Char('q') | KeyCode::Esc => return Pressed::Quit,
            KeyCode::Char('?' | 'h') => self.shows_help = true,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Tab | KeyCode::Right | KeyCode::Down => self.link = (self.link + 1) % links,
            KeyCode::BackTab | KeyCode::Left | KeyCode::Up => {
                self.link = (self.link + links - 1) % links;
            }
            _ => return Pressed::Nothing,
        }
        Pressed::Redraw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(state: &mut State, code: KeyCode) -> Pressed {
        state.press(KeyEvent::new(code, KeyModifiers::NONE), 3)
    }

    #[test]
    fn keys_do_what_the_screen_says() {
        let mut state = State::default();
        for (code, link) in [
            (KeyCode::Tab, 1),
            (KeyCode::Right, 2),
            (KeyCode::Down, 0),
            (KeyCode::Left, 2),
            (KeyCode::BackTab, 1),
        ] {
            assert_eq!(press(&mut state, code), Pressed::Redraw);
            assert_eq!(state.link, link);
        }
        press(&mut state, KeyCode::Char('p'));
        assert!(state.is_paused);
        for order in [Order::Messages, Order::Factor, Order::Bytes] {
            press(&mut state, KeyCode::Char('s'));
            assert_eq!(state.order, order);
        }
        press(&mut state, KeyCode::Char('?'));
        // Out of the help first.
        assert_eq!(press(&mut state, KeyCode::Esc), Pressed::Redraw);
        assert_eq!(press(&mut state, KeyCode::Char('x')), Pressed::Nothing);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Pressed::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(state.press(interrupt, 0), Pressed::Quit);
    }
}
