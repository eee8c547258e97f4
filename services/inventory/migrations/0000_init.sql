CREATE TABLE `inventory_inbox_event` (
	`event_id` char(36) NOT NULL,
	`aggregate_id` varchar(128) NOT NULL,
	`type` varchar(128) NOT NULL,
	`source` varchar(128) NOT NULL,
	`occurred_at` timestamp(3) NOT NULL,
	`published_at` timestamp(3) NOT NULL,
	`topic_partition` int unsigned NOT NULL,
	`topic_offset` bigint unsigned NOT NULL,
	`handled_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`batch_id` char(36) NOT NULL,
	`outcome` varchar(20) NOT NULL,
	CONSTRAINT `inventory_inbox_event_event_id` PRIMARY KEY(`event_id`)
);
--> statement-breakpoint
CREATE TABLE `inventory_outbox_event` (
	`id` char(36) NOT NULL,
	`aggregate_id` varchar(128) NOT NULL,
	`type` varchar(128) NOT NULL,
	`payload` mediumtext NOT NULL,
	`headers` text,
	`occurred_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`status` varchar(20) NOT NULL DEFAULT 'PENDING',
	`retry_count` smallint unsigned NOT NULL DEFAULT 0,
	`last_error` text,
	`published_at` timestamp(3),
	`seq` bigint unsigned AUTO_INCREMENT NOT NULL,
	`next_attempt_at` timestamp(3),
	CONSTRAINT `inventory_outbox_event_id` PRIMARY KEY(`id`),
	CONSTRAINT `inventory_outbox_event_seq` UNIQUE(`seq`)
);
--> statement-breakpoint
CREATE TABLE `inventory_outbox_event_archive` (
	`id` char(36) NOT NULL,
	`aggregate_id` varchar(128) NOT NULL,
	`type` varchar(128) NOT NULL,
	`payload` mediumtext NOT NULL,
	`headers` text,
	`occurred_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`status` varchar(20) NOT NULL DEFAULT 'PENDING',
	`retry_count` smallint unsigned NOT NULL DEFAULT 0,
	`last_error` text,
	`published_at` timestamp(3),
	`seq` bigint unsigned NOT NULL,
	`archived_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`discarded_by` varchar(128),
	`discard_reason` varchar(500),
	CONSTRAINT `inventory_outbox_event_archive_id` PRIMARY KEY(`id`),
	CONSTRAINT `inventory_outbox_event_archive_seq` UNIQUE(`seq`)
);
--> statement-breakpoint
CREATE TABLE `inventory_parked_event` (
	`event_id` char(36) NOT NULL,
	`position` bigint unsigned AUTO_INCREMENT NOT NULL,
	`aggregate_id` varchar(128) NOT NULL,
	`type` varchar(128) NOT NULL,
	`source` varchar(128) NOT NULL,
	`occurred_at` timestamp(3),
	`published_at` timestamp(3) NOT NULL,
	`topic_partition` int unsigned NOT NULL,
	`topic_offset` bigint unsigned NOT NULL,
	`record_key` longblob,
	`headers` mediumtext NOT NULL,
	`payload` longblob,
	`error` text,
	`parked_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	CONSTRAINT `inventory_parked_event_event_id` PRIMARY KEY(`event_id`),
	CONSTRAINT `inventory_parked_event_position` UNIQUE(`position`)
);
--> statement-breakpoint
CREATE TABLE `inventory_parked_key` (
	`aggregate_id` varchar(128) NOT NULL,
	`event_id` char(36) NOT NULL,
	`reason` varchar(20) NOT NULL,
	`error` text NOT NULL,
	`attempts` int unsigned NOT NULL,
	`parked_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`failed_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`replay_requested_at` timestamp(3),
	CONSTRAINT `inventory_parked_key_aggregate_id` PRIMARY KEY(`aggregate_id`)
);
--> statement-breakpoint
CREATE TABLE `reservation` (
	`order_id` varchar(128) NOT NULL,
	`status` varchar(20) NOT NULL,
	`held_lines` text NOT NULL,
	`created_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`updated_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	CONSTRAINT `reservation_order_id` PRIMARY KEY(`order_id`)
);
--> statement-breakpoint
CREATE TABLE `stock` (
	`sku` varchar(64) NOT NULL,
	`initial` int NOT NULL,
	`available` int NOT NULL,
	`held` int NOT NULL DEFAULT 0,
	`sold` int NOT NULL DEFAULT 0,
	CONSTRAINT `stock_sku` PRIMARY KEY(`sku`),
	CONSTRAINT `stock_not_negative` CHECK(available >= 0 AND held >= 0 AND sold >= 0),
	CONSTRAINT `stock_adds_up` CHECK(initial = available + held + sold)
);
--> statement-breakpoint
CREATE INDEX `inventory_inbox_event_aggregate_id` ON `inventory_inbox_event` (`aggregate_id`);--> statement-breakpoint
CREATE INDEX `inventory_inbox_event_handled_at` ON `inventory_inbox_event` (`handled_at`);--> statement-breakpoint
CREATE INDEX `inventory_outbox_event_status_seq` ON `inventory_outbox_event` (`status`,`seq`);--> statement-breakpoint
CREATE INDEX `inventory_outbox_event_aggregate_id` ON `inventory_outbox_event` (`aggregate_id`,`seq`);--> statement-breakpoint
CREATE INDEX `inventory_outbox_event_archive_aggregate_id` ON `inventory_outbox_event_archive` (`aggregate_id`,`seq`);--> statement-breakpoint
CREATE INDEX `inventory_outbox_event_archive_archived_at` ON `inventory_outbox_event_archive` (`archived_at`);--> statement-breakpoint
CREATE INDEX `inventory_parked_event_aggregate_id` ON `inventory_parked_event` (`aggregate_id`,`position`);--> statement-breakpoint
CREATE INDEX `inventory_parked_key_replay_requested_at` ON `inventory_parked_key` (`replay_requested_at`);