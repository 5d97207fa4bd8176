module github.com/cloudtrust/go-jobs/lock

go 1.25.0

require (
	github.com/DATA-DOG/go-sqlmock v1.5.0
	github.com/lib/pq v1.10.0
	github.com/stretchr/testify v1.7.2
)

require (
	github.com/davecgh/go-spew v1.1.0 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
