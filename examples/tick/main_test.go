package main

func Example() {
	main()
	// Output:
	// instance-1 writes the report of 2026-03-02
	// instance-2 has nothing to do: 2026-03-02T02:00:00Z has been run
	// instance-2 writes the report of 2026-03-03
}
