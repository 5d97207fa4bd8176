// Package compat has no code: its tests show that package lock works with what services put
// between themselves and their database. GORM, sqlx, bun, ent and pgx pools hand over their
// *sql.DB; pgbouncer stands in front of it in transaction mode; a role may create no tables;
// goose or golang-migrate make the table.
//
// It is a module of its own, so that nobody who uses the lock gets these libraries with it. What
// was found is in README.md.
package compat
