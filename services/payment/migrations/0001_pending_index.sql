CREATE INDEX `payment_outbox_event_pending` ON `payment_outbox_event` (`status`,`seq`,`aggregate_id`);--> statement-breakpoint
DROP INDEX `payment_outbox_event_status_seq` ON `payment_outbox_event`;
