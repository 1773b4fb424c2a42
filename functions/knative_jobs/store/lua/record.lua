-- Reads one job.
-- ARGV   1 id
-- Reply  the public record as JSON, or nothing
-- Guarantee  nothing is changed.

return render(ARGV[1])
