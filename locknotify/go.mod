module github.com/cloudtrust/go-jobs/lock/locknotify

go 1.25.0

require (
	github.com/cloudtrust/go-jobs/lock v0.0.0-00010101000000-000000000000
	github.com/jackc/pgx/v5 v5.7.0
	github.com/lib/pq v1.10.0
	github.com/stretchr/testify v1.9.0
)

require (
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	github.com/rogpeppe/go-internal v1.16.0 // indirect
	golang.org/x/crypto v0.17.0 // indirect
	golang.org/x/text v0.14.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)

replace github.com/cloudtrust/go-jobs/lock => ../
