"""What a job was asked, what it found, and the pictures: as JSON, as one HTML file, as pages."""
