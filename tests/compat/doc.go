// Package compat tests package lock with what services have between themselves and the database:
// GORM, sqlx, bun, ent and pgx pools, pgbouncer in transaction mode, a role that may not create
// tables, goose and golang-migrate.
//
// It is a module of its own, so that users of the lock don't get these libraries. README.md has
// the results.
package compat
