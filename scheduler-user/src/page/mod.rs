//! Pages that need nothing from elsewhere: one style, light and dark, and pictures inside.
//!
//! Pictures are drawn once, in the colours of [`Colour`] for light pages. Where the reader prefers dark, the style puts others
//! in their place: a rule of a style sheet counts more than the colour that an element of a picture has by itself.

use plotters::{coord::Shift, prelude::*};

/// Style of every page.
pub const STYLE: &str = include_str!("style.css");

/// A colour of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Text and axes.
    Ink,
    /// Lines behind the data.
    Grid,
    /// What came as it came.
    Fifo,
    /// By bytes sent.
    Aging,
    /// By what was learned.
    Learned,
    /// By true sizes.
    Oracle,
}

impl Colour {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ink,
        Self::Grid,
        Self::Fifo,
        Self::Aging,
        Self::Learned,
        Self::Oracle,
    ];

    /// On light pages; the style sheet knows it by this value.
    pub const fn light(self) -> RGBColor {
        match self {
            Self::Ink => RGBColor(28, 36, 48),
            Self::Grid => RGBColor(228, 232, 237),
            Self::Fifo => RGBColor(120, 127, 137),
            Self::Aging => RGBColor(222, 143, 5),
            Self::Learned => RGBColor(2, 138, 94),
            Self::Oracle => RGBColor(1, 105, 178),
        }
    }
}

/// Where a picture is drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A picture could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw a plot: {0}")]
pub struct PlotError(String);

impl PlotError {
    /// The library's errors have a type for each kind of area.
    pub fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Draws a picture that shrinks with the window.
///
/// # Errors
/// What `draw` gives, or that the picture can't be ended.
pub fn svg<E: From<PlotError>>(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), E>,
) -> Result<String, E> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    area.fill(&WHITE).map_err(PlotError::of)?;
    draw(&area)?;
    area.present().map_err(PlotError::of)?;
    drop(area);
    // Fixed sizes would keep the picture from shrinking with the window.
    let wanted = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
    Ok(svg.replacen(&wanted, "<svg", 1))
}

/// A picture as a file of its own, which a page may show in its text: light and dark by the reader's wish.
#[must_use]
pub fn alone(svg: &str, (width, height): (u32, u32), name: &str) -> String {
    let head = format!(
        "<svg width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{}\"",
        escape(name)
    );
    let svg = svg.replacen("<svg", &head, 1);
    svg.replacen('>', &format!("><style>{STYLE}</style>"), 1)
}

/// Text that may stand in a page, also in the value of an attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_knows_every_colour_and_loads_nothing() {
        for colour in Colour::ALL {
            let RGBColor(red, green, blue) = colour.light();
            let value = format!("[fill=\"#{red:02X}{green:02X}{blue:02X}\"]");
            assert!(STYLE.contains(&value), "{colour:?}: {value}");
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }

    #[test]
    fn a_picture_has_no_fixed_size_and_shows_what_was_drawn() {
        let drawn = svg((300, 100), |area| {
            let style = Colour::Aging.light().filled();
            area.draw(&Rectangle::new([(1, 1), (9, 9)], style))
                .map_err(PlotError::of)
        });
        let drawn = drawn.unwrap();
        assert!(drawn.starts_with("<svg viewBox=\"0 0 300 100\""), "{drawn}");
        assert!(drawn.contains("#DE8F05") && drawn.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn text_can_not_leave_its_place() {
        assert_eq!(escape("<a b=\"c&d\">"), "&lt;a b=&quot;c&amp;d&quot;&gt;");
    }
}
