CREATE TABLE `payment_inbox_event` (
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
	CONSTRAINT `payment_inbox_event_event_id` PRIMARY KEY(`event_id`)
);
--> statement-breakpoint
CREATE TABLE `payment_outbox_event` (
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
	CONSTRAINT `payment_outbox_event_id` PRIMARY KEY(`id`),
	CONSTRAINT `payment_outbox_event_seq` UNIQUE(`seq`)
);
--> statement-breakpoint
CREATE TABLE `payment_outbox_event_archive` (
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
	CONSTRAINT `payment_outbox_event_archive_id` PRIMARY KEY(`id`),
	CONSTRAINT `payment_outbox_event_archive_seq` UNIQUE(`seq`)
);
--> statement-breakpoint
CREATE TABLE `payment_parked_event` (
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
	CONSTRAINT `payment_parked_event_event_id` PRIMARY KEY(`event_id`),
	CONSTRAINT `payment_parked_event_position` UNIQUE(`position`)
);
--> statement-breakpoint
CREATE TABLE `payment_parked_key` (
	`aggregate_id` varchar(128) NOT NULL,
	`event_id` char(36) NOT NULL,
	`reason` varchar(20) NOT NULL,
	`error` text NOT NULL,
	`attempts` int unsigned NOT NULL,
	`parked_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`failed_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`replay_requested_at` timestamp(3),
	CONSTRAINT `payment_parked_key_aggregate_id` PRIMARY KEY(`aggregate_id`)
);
--> statement-breakpoint
CREATE TABLE `payment` (
	`order_id` varchar(128) NOT NULL,
	`status` varchar(20) NOT NULL,
	`currency_code` varchar(3),
	`amount_minor` bigint,
	`payment_method` varchar(64),
	`authorization_id` varchar(128),
	`voided_minor` bigint,
	`cause` text,
	`attempts` int unsigned NOT NULL DEFAULT 0,
	`next_attempt_at` timestamp(3),
	`created_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`updated_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	CONSTRAINT `payment_order_id` PRIMARY KEY(`order_id`)
);
--> statement-breakpoint
CREATE INDEX `payment_inbox_event_aggregate_id` ON `payment_inbox_event` (`aggregate_id`);--> statement-breakpoint
CREATE INDEX `payment_inbox_event_handled_at` ON `payment_inbox_event` (`handled_at`);--> statement-breakpoint
CREATE INDEX `payment_outbox_event_status_seq` ON `payment_outbox_event` (`status`,`seq`);--> statement-breakpoint
CREATE INDEX `payment_outbox_event_aggregate_id` ON `payment_outbox_event` (`aggregate_id`,`seq`);--> statement-breakpoint
CREATE INDEX `payment_outbox_event_archive_aggregate_id` ON `payment_outbox_event_archive` (`aggregate_id`,`seq`);--> statement-breakpoint
CREATE INDEX `payment_outbox_event_archive_archived_at` ON `payment_outbox_event_archive` (`archived_at`);--> statement-breakpoint
CREATE INDEX `payment_parked_event_aggregate_id` ON `payment_parked_event` (`aggregate_id`,`position`);--> statement-breakpoint
CREATE INDEX `payment_parked_key_replay_requested_at` ON `payment_parked_key` (`replay_requested_at`);--> statement-breakpoint
CREATE INDEX `payment_next_attempt_at` ON `payment` (`next_attempt_at`);