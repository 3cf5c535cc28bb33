//! iceoryx2, as its documentation says to use it where both sides sleep: publish-subscribe for the
//! bytes, an event for the wake-up.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use iceoryx2::port::{
    listener::Listener, notifier::Notifier, publisher::Publisher, subscriber::Subscriber,
};
use iceoryx2::prelude::{LogLevel, NodeBuilder, ipc, set_log_level};
use iceoryx2::service::port_factory::{PortFactory as _, event, publish_subscribe};

use super::exchange::{Exchange, put_stamps, stamps};

type Service = ipc::Service;

pub(super) struct Iceoryx {
    publisher: Publisher<Service, [u8], ()>,
    subscriber: Subscriber<Service, [u8], ()>,
    notifier: Notifier<Service>,
    listener: Listener<Service>,
    bytes: usize,
    /// Kept as long as the ports that were made of them.
    _services: [Services; 2],
}

type Services = (
    publish_subscribe::PortFactory<Service, [u8], ()>,
    event::PortFactory<Service>,
);

impl Iceoryx {
    pub(super) fn open(bytes: usize, name: &str, first: bool) -> Result<Self> {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new().create::<Service>()?;
        let services = ["there", "back"].map(|way| -> Result<Services> {
            let name = format!("zhaul-bench/{name}/{way}");
            let bytes = node
                .service_builder(&name.as_str().try_into()?)
                .publish_subscribe::<[u8]>()
                .open_or_create()?;
            let event = node
                .service_builder(&name.as_str().try_into()?)
                .event()
                .open_or_create()?;
            Ok((bytes, event))
        });
        let [there, back] = services;
        let (there, back) = (there?, back?);
        let (out, into) = if first {
            (&there, &back)
        } else {
            (&back, &there)
        };
        let publisher = out
            .0
            .publisher_builder()
            .initial_max_slice_len(bytes)
            .create()?;
        let subscriber = into.0.subscriber_builder().create()?;
        let notifier = out.1.notifier_builder().create()?;
        let listener = into.1.listener_builder().create()?;
        // Nothing is kept for a subscriber that comes later.
        let deadline = Instant::now() + Duration::from_secs(10);
        let complete = |services: &Services| {
            let subscribers = services.0.dynamic_config().number_of_subscribers();
            subscribers == 1 && services.1.dynamic_config().number_of_listeners() == 1
        };
        while !complete(&there) || !complete(&back) {
            anyhow::ensure!(Instant::now() < deadline, "the other did not come");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self {
            publisher,
            subscriber,
            notifier,
            listener,
            bytes,
            _services: [there, back],
        })
    }
}

impl Exchange for Iceoryx {
    fn send(&mut self, stamp: u64) -> Result<()> {
        let mut sample = self.publisher.loan_slice_uninit(self.bytes)?;
        let payload: &mut [MaybeUninit<u8>] = sample.payload_mut();
        // SAFETY: the loan is shared memory, all of which the kernel initialised.
        put_stamps(unsafe { payload.assume_init_mut() }, stamp);
        // SAFETY: as above; the stamps are written, and nobody looks at the rest.
        unsafe { sample.assume_init() }.send()?;
        self.notifier.notify()?;
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                return stamps(sample.payload());
            }
            self.listener
                .blocking_wait(|_| {})
                .map_err(|error| anyhow::anyhow!("{error:?}"))
                .context("waiting")?;
        }
    }
}
