CREATE INDEX `inventory_outbox_event_pending` ON `inventory_outbox_event` (`status`,`seq`,`aggregate_id`);--> statement-breakpoint
DROP INDEX `inventory_outbox_event_status_seq` ON `inventory_outbox_event`;
