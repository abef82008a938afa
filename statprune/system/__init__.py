"""What touches the machine: devices, processes, memory, files, time, the network and the terminal."""
