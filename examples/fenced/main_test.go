package main

func Example() {
	main()
	// Output:
	// written: by the second
	// refused: by the first, late
	// lost: true
	// the second: <nil> <nil>
}
