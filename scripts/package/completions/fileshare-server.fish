complete -c fileshare-server -l bind -d 'Address to listen on, IPv4 or IPv6' -r
complete -c fileshare-server -l credentials -d 'Who may join' -r -F
complete -c fileshare-server -l data -d 'Where publications are kept [default: fileshare.db]' -r -F
complete -c fileshare-server -l heartbeat -d 'How often clients report, seconds; the server tells them' -r
complete -c fileshare-server -l liveness -d 'Silence after which a client is no longer active, seconds' -r
complete -c fileshare-server -l log-level -d 'What is logged on stderr' -r
complete -c fileshare-server -l log-format -d 'How lines of the log look' -r -f -a "text\t''
json\t'One JSON object a line'"
complete -c fileshare-server -l port-file -d 'Write the port to FILE when the server is ready, and remove FILE when it ends' -r -F
complete -c fileshare-server -l status -d 'Serve a status page and metrics over HTTP at this loopback address; port 0 takes a free one, which the log names' -r
complete -c fileshare-server -l max-files -d 'Most publications of a user; a batch over a quota is refused, what exists stays' -r
complete -c fileshare-server -l max-name-bytes -d 'Most bytes that the names of a user\'s publications take' -r
complete -c fileshare-server -l max-audience -d 'Most members of a user\'s audiences, summed over those that differ' -r
complete -c fileshare-server -l max-files-per-second -d 'Files that a user may publish and unpublish each second, and 50 times as many at once' -r
complete -c fileshare-server -l enrol -d 'Read NAME\'s password (from the terminal, hidden, or the first line of stdin), print a line for the credentials file that reveals no password, and exit. With --data, the line is for the server with that data file: nobody can tell by logging in when it was added' -r
complete -c fileshare-server -l forget -d 'Delete what USER has published, who is not in the credentials any more, say how much it was, and exit. No server may be running on the data file' -r
complete -c fileshare-server -l ephemeral -d 'Keep nothing after exit (for test harnesses)'
complete -c fileshare-server -l status-users -d 'Show on the status page who is logged in, and from where'
complete -c fileshare-server -l check -d 'Check the options, the credentials and the data file, say what is wrong or `ok`, change nothing, and exit. A server may run meanwhile'
complete -c fileshare-server -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fileshare-server -s V -l version -d 'Print version'
