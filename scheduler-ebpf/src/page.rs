//! What few packets do: messages end and begin, the model is asked, samples leave.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::info;
use scheduler_common::{
    counter::{Counter, Counts, Kept},
    features::Features,
    flow::{Flow, Hashing, Story, half_flags},
    history::HistoryEntry,
    sample::Hook,
    settings::{SampleBudget, Settings},
};
use scheduler_ebpf::{
    features::{self, Socket},
    flow::{self, Cause, Ended, Step, event},
    history::{self, Place},
    parse::Headers,
    stream::{self, Found},
    verdict,
};

use crate::{
    count,
    general::Hooked,
    maps::{HISTORY, Own, Scratch},
    sample::{Report, Sampler},
    secret,
    socket::Sender,
    tree::{self, Answers},
};

/// What the page of a flow goes by.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) settings: &'static Settings,
    pub(crate) hashing: &'static Hashing,
    pub(crate) hook: Hook,
    /// Interface whose name the flow bears.
    pub(crate) ifindex: u32,
}

/// A packet that needs more than its flow's cache line.
pub(crate) struct Page<'a> {
    pub(crate) known: Known,
    pub(crate) headers: &'a Headers,
    pub(crate) flow: &'a mut Flow,
    pub(crate) story: &'a mut Story,
    pub(crate) step: &'a mut Step,
    pub(crate) socket: &'a mut Socket,
    pub(crate) features: &'a mut Features,
    pub(crate) answers: &'a mut Answers,
}

impl<'a> Page<'a> {
    /// The page of the packet in the work space, and where to report it.
    #[inline(always)]
    pub(crate) fn of<C: Hooked>(
        own: &'a mut Own,
        (flow, story): (&'a mut Flow, &'a mut Story),
        settings: &'static Settings,
    ) -> (Self, Report<'a>) {
        let Kept { counts, budget } = &mut own.kept;
        let Scratch {
            parsed,
            step,
            socket,
            features,
            answers,
            now_ns,
            ifindex,
            ..
        } = &mut own.scratch;
        let headers = &parsed.headers;
        let known = Known {
            settings,
            hashing: secret::get(),
            hook: C::HOOK,
            ifindex: *ifindex,
        };
        let network = history::network(headers, known.hook);
        let report = Report {
            counts,
            sampler: Sampler::new(flow.tag, known, *now_ns, network),
            budget,
        };
        let page = Self {
            known,
            headers,
            flow,
            story,
            step,
            socket,
            features,
            answers,
        };
        (page, report)
    }

    /// What [`flow::turn_page`] found at the message's beginning.
    #[inline(always)]
    pub(crate) fn begin(&mut self, report: &mut Report<'_>) {
        self.ended(self.step.half & 1 ^ 1, self.step.other_end, report);
        if self.step.has(event::STARTED) {
            count::one(report.counts, Counter::MessagesStarted);
            self.recall();
        }
    }

    /// The message's end, if it is over. After the decision: a FIN ends the message that it has just been part of, and
    /// so may the decision.
    #[inline(always)]
    pub(crate) fn end(&mut self, report: &mut Report<'_>) {
        self.ended(self.step.half & 1, self.step.own_end, report);
    }

    /// Looks up what messages like the one that begins were.
    #[inline(always)]
    fn recall(&mut self) {
        let half = self.step.half;
        let [service, network] = self.places(half);
        self.story.halves[half as usize & 1].history_log2_q8 = [mean(service), mean(network)];
    }

    /// Adds the message of `half` that ended to what others like it were, and reports it.
    #[inline(always)]
    fn ended(&mut self, half: u32, ended: Ended, report: &mut Report<'_>) {
        let counter = match ended.cause {
            Cause::None => return,
            Cause::Turn => Counter::EndedByTurn,
            Cause::Gap => Counter::EndedByGap,
            Cause::Close => Counter::EndedByClose,
        };
        count::one(report.counts, counter);
        let [service, network] = self.places(half);
        learn(service, ended.bytes);
        learn(network, ended.bytes);
        report.message_end(
            half ^ self.step.half,
            &self.flow.halves[half as usize & 1],
            (half, ended),
        );
    }

    #[inline(always)]
    fn places(&self, half: u32) -> [Place; 2] {
        history::places(
            self.headers,
            self.story,
            (half, self.step.half),
            (self.known.hook, self.known.ifindex),
            self.known.hashing,
        )
    }

    /// Describes the packet, asks the model on egress, and reports both.
    ///
    /// While the answer could change nothing, the model is asked for the sake of samples only.
    #[inline(always)]
    pub(crate) fn decide<C: EbpfContext + Sender>(&mut self, ctx: &C, report: &mut Report<'_>) {
        count::one(report.counts, Counter::DecisionPoints);
        let half = self.step.half as usize & 1;
        let own = &mut self.flow.halves[half];
        match stream::look(own, self.step.gap_us, self.known.settings) {
            Found::Message => {}
            Found::Stream => return,
            Found::Turned => return flow::cut((self.flow, self.story), self.step),
        }
        let sampled = report.sampler.is_chosen();
        let matters = verdict::asks(own, self.known.settings);
        let asks = matches!(self.known.hook, Hook::Egress) && (matters || sampled);
        if asks || sampled {
            ctx.ask(self.headers.protocol, self.socket);
            features::extract(
                self.headers,
                (self.flow, self.story),
                (self.step, self.socket),
                self.features,
            );
        }
        self.answers.begin(asks && matters, sampled);
        if asks {
            tree::ask(self.features, self.answers.joined(), report.counts);
            tree::ask_beside(self.features, self.answers.joined(), report.counts);
            self.heed(half, report.counts);
            log_new_generation(ctx, report.budget, self.answers.joined().generation);
        }
        let (own, page) = (&mut self.flow.halves[half], &self.story.halves[half]);
        verdict::settle(own, page, self.known.settings);
        let answers = self.answers.joined();
        if answers.matters != 0 && answers.beside_generation != 0 {
            let guessed = verdict::alone(
                own.bytes,
                answers.beside().bytes_to_come(),
                self.known.settings,
            );
            report
                .counts
                .beside
                .count(answers.beside_generation, own.band, guessed);
        }
        if answers.sampled != 0 {
            report.decision(self);
        }
    }

    /// Takes what the active model said for the message's, if it matters, or notes that there is none.
    #[inline(always)]
    fn heed(&mut self, half: usize, counts: &mut Counts) {
        let (own, page) = (&mut self.flow.halves[half], &mut self.story.halves[half]);
        let answers = self.answers.joined();
        if answers.is_there == 0 {
            page.predicted_bytes = 0;
            own.flags &= !half_flags::PREDICTED;
        } else if answers.matters != 0 {
            let slot = count::own_slot(counts, answers.generation);
            verdict::take(own, page, answers.own().bytes_to_come(), slot);
        }
    }
}

/// Mean size of the messages at `place`; 0 if there was none.
#[inline(always)]
fn mean(place: Place) -> u16 {
    match HISTORY.get(place.index) {
        Some(entry) if entry.tag == place.tag => entry.log2_q8,
        _ => 0,
    }
}

/// Adds a message to those at `place`, which are others' until now if the tag is.
#[inline(always)]
fn learn(place: Place, bytes: u32) {
    let Some(entry) = HISTORY.get_ptr_mut(place.index) else {
        return;
    };
    // SAFETY: map values live as long as the program runs; another CPU may write the same integers, and one of
    // the two messages is then not in the mean.
    let entry = unsafe { &mut *entry };
    if entry.tag != place.tag {
        *entry = HistoryEntry {
            tag: place.tag,
            log2_q8: 0,
            messages: 0,
        };
    }
    entry.add(bytes);
}

/// One line a CPU when a generation is first seen there.
#[inline(always)]
fn log_new_generation<C: EbpfContext>(ctx: &C, budget: &mut SampleBudget, generation: u32) {
    if budget.logged_generation != generation {
        budget.logged_generation = generation;
        info!(ctx, "generation {} classifies on this CPU", generation);
    }
}
