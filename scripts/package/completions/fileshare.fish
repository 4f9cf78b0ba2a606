complete -c fileshare -s u -l user -d 'Log in as NAME at start' -r
complete -c fileshare -l password-file -d 'The first line of FILE is the password; \'-\' is stdin [else: env FILESHARE_PASSWORD, else a hidden prompt]' -r -F
complete -c fileshare -s d -l dir -d 'The folder to share from and download to' -r -F
complete -c fileshare -s c -l command -d 'Run this command; may be given several times. A leading \'-\' ignores its failure' -r
complete -c fileshare -s b -l batch -d 'Run the commands in FILE, one a line; \'-\' is stdin' -r -F
complete -c fileshare -l listen -d 'Where to listen for peers [default: the address that faces the server, a free port]' -r
complete -c fileshare -l color -d 'Colours in text' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set or TERM is dumb'
always\t'Also in a pipe'
never\t'None'"
complete -c fileshare -l on-exists -d 'What \'get\' does when the file is there already' -r -f -a "error\t'Refuse'
overwrite\t'Replace it, atomically'
rename\t'Save as `name (1).ext`'
skip\t'Leave it and succeed'"
complete -c fileshare -l retry-for -d 'How long \'get\' waits for a source to return when all are gone' -r
complete -c fileshare -l limit-rate -d 'Bytes a second over all uploads; K, M and G are powers of 1024' -r
complete -c fileshare -l upload-slots -d 'Uploads that may run at the same time' -r
complete -c fileshare -s a -l attach -d 'Run the commands in a client that already runs here: the only one, or that of NAME or of the server'
complete -c fileshare -l no-control -d 'No control socket: nobody can attach to this client'
complete -c fileshare -l stay -d 'After the commands, stay online and keep serving until SIGINT or SIGTERM'
complete -c fileshare -l json -d 'One JSON object a line on stdout instead of text'
complete -c fileshare -l events -d 'With --json, report events beside the commands, from the start'
complete -c fileshare -l tcp-only -d 'Transfer over TCP between clients of one user on one host too, where files are passed directly otherwise'
complete -c fileshare -s q -l quiet -d 'No greetings, no notes'
complete -c fileshare -s v -l verbose -d 'More detail on stderr; twice for still more'
complete -c fileshare -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fileshare -s V -l version -d 'Print version'
