CREATE INDEX `order_outbox_event_pending` ON `order_outbox_event` (`status`,`seq`,`aggregate_id`);--> statement-breakpoint
DROP INDEX `order_outbox_event_status_seq` ON `order_outbox_event`;
